"""Where a bundle's network holds the values of its ONNX file while it runs: ``tensors.json``, and arrays made from the bytes.

Every value that a kernel call writes and nothing else writes is an entry, in the order of the calls. Observing them
(``devices.Session.run_tapped``) is how ``validate`` finds the first wrong layer; forcing them gives a layer the reference's input.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bnn_deploy.bits import as_words, pack_bits, unpack_bits
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.errors import BundleError, InputError
from bnn_deploy.plan import Space

NAME = "tensors.json"
FORMAT_VERSION = 1
_MAXIMUM_BYTES = 64 << 20
_MAXIMUM_SIZE = 1 << 40
_ITEM_BYTES = 4
# As ``bnn_run_tapped`` of bnn_model.h numbers them.
SPACES = (Space.INPUT, Space.OUTPUT, Space.WEIGHTS, Space.ARENA, Space.WORKSPACE)
_OBSERVABLE = {space.value for space in (Space.OUTPUT, Space.ARENA, Space.WORKSPACE)}
TAP_COLUMNS = 9

Key = tuple[str, str]


@dataclass(frozen=True)
class Place:
    """Where the kernels of one kernel set write a value: block ``b`` is at ``offset + b // every * stride`` of ``space``."""

    space: str
    offset: int
    stride: int
    every: int
    bytes: int
    blocks: int


@dataclass(frozen=True)
class TensorEntry:
    """One ONNX value of a network.

    Attributes:
        tensor: its name in the ONNX file (in the model that the front end makes of a file from elsewhere).
        kind: "words" (packed signs, uint32) or "floats" (float32).
        layer: the PyTorch layer (or ONNX node) that computes it.
        step: index of the kernel call that writes it.
        shape: in memory, batch included.
        channels: that words hold; 0 for floats.
        channels_last: NCHW in the file, NHWC in memory.
        ternary: three values, in two planes of words.
        places: one for each kernel set.
        offset: where it begins in the bytes of one batch that ``TensorTable.split`` takes.
    """

    tensor: str
    kind: str
    layer: str
    step: int
    shape: tuple[int, ...]
    channels: int
    channels_last: bool
    ternary: bool
    places: tuple[Place, ...]
    offset: int = 0

    @property
    def key(self) -> Key:
        """(tensor, kind): unique in a table."""
        return self.tensor, self.kind

    @property
    def bytes(self) -> int:
        """Of the value for one batch."""
        return prod(self.shape) * _ITEM_BYTES

    @property
    def onnx_shape(self) -> tuple[int, ...]:
        """Shape of the ONNX value, batch included."""
        shape = self._shape_of_signs()
        return (shape[0], shape[3], *shape[1:3]) if self.channels_last else shape

    def _shape_of_signs(self) -> tuple[int, ...]:
        """The shape with channels in the place of words."""
        if self.kind != "words":
            return self.shape
        shape = [*self.shape[:-1], self.channels]
        if self.ternary:
            del shape[self._plane_axis]
        return tuple(shape)

    def to_onnx(self, array: np.ndarray) -> np.ndarray:
        """The ONNX value: words become int8 signs in {-1, 0, +1}, floats stay float32; NCHW where the file says so.

        Args:
            array: uint32 or float32 in the layout of memory, any whole number of batches along axis 0.
        """
        if self.kind == "words":
            array = self._signs(array)
        return np.moveaxis(array, 3, 1) if self.channels_last else array

    def from_onnx(self, array: np.ndarray) -> np.ndarray:
        """The other way: ``array`` holds signs (numbers in {-1, 0, +1}) or floats; padding bits are 0.

        Raises:
            InputError: not signs, or a 0 where the value has two values only.
        """
        array = np.asarray(array)
        if self.channels_last:
            array = np.moveaxis(array, 1, 3)
        if self.kind == "floats":
            return np.ascontiguousarray(array, np.float32)
        if not self.ternary:
            return as_words(pack_bits(array))
        if not np.isin(array, (-1, 0, 1)).all():
            raise InputError(f"{self.tensor}: three-valued signs are -1, 0 and +1, found others; give signs.")
        planes = [as_words(pack_bits(array != 0)), as_words(pack_bits(array > 0))]
        return np.stack(planes, axis=self._plane_axis)

    @property
    def _plane_axis(self) -> int:
        # After the rows of an image, as in dialect.operators.plane_axis.
        return min(2, len(self.shape) - 2)

    def _signs(self, words: np.ndarray) -> np.ndarray:
        bits = unpack_bits(np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8), self.channels)
        if not self.ternary:
            return bits
        nonzero, positive = (np.take(bits, plane, axis=self._plane_axis) for plane in (0, 1))
        return np.where(nonzero > 0, positive, np.int8(0)).astype(np.int8)


@dataclass(frozen=True)
class TensorTable:
    """Entries in the order of execution; their values of one batch lie one after the other."""

    entries: tuple[TensorEntry, ...]
    total_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        offset, placed = 0, []
        for entry in self.entries:
            placed.append(replace(entry, offset=offset))
            offset += entry.bytes
        object.__setattr__(self, "entries", tuple(placed))
        object.__setattr__(self, "total_bytes", offset)

    @staticmethod
    def open(bundle: Bundle) -> TensorTable:
        """The table of a bundle.

        Raises:
            BundleError: it has none, or a damaged one.
        """
        path = bundle.path / NAME
        if NAME not in bundle.manifest["files"]:
            raise BundleError(
                f"The bundle {bundle.path} does not say where its layers' values are: it was compiled by an older "
                "bnn-deploy; compile it again, or validate with --level 3 only."
            )
        return read_table(path, kernel_sets=len(bundle.kernel_sets), steps=len(bundle.steps))

    def select(self, keys: Collection[Key]) -> TensorTable:
        """Only these entries."""
        return TensorTable(tuple(entry for entry in self.entries if entry.key in keys))

    def find(self, tensor: str, kind: str) -> TensorEntry | None:
        """The entry of a value, None if the network does not store it."""
        return next((entry for entry in self.entries if entry.key == (tensor, kind)), None)

    def taps(self, force: Collection[Key] = ()) -> np.ndarray:
        """What ``run_tapped`` takes: int64 (entries x kernel sets, 9); entries in ``force`` are overwritten after observing."""
        names = {space.value: index for index, space in enumerate(SPACES)}
        rows = [
            (
                number,
                entry.step,
                names[place.space],
                place.offset,
                place.stride,
                place.every,
                place.bytes,
                entry.offset,
                int(entry.key in force),
            )
            for entry in self.entries
            for number, place in enumerate(entry.places)
        ]
        return np.array(rows, np.int64).reshape(-1, TAP_COLUMNS)

    def split(self, values: np.ndarray) -> dict[Key, np.ndarray]:
        """Arrays in the layout of memory from uint8 (batches, total_bytes), the batches along axis 0."""
        arrays = {}
        for entry in self.entries:
            part = np.ascontiguousarray(values[:, entry.offset : entry.offset + entry.bytes])
            dtype = np.dtype("<u4" if entry.kind == "words" else "<f4")
            arrays[entry.key] = part.view(dtype).reshape(len(values) * entry.shape[0], *entry.shape[1:])
        return arrays

    def join(self, arrays: Mapping[Key, np.ndarray], batches: int = 1) -> np.ndarray:
        """uint8 (batches, total_bytes) from arrays in the layout of memory; entries without one are zero bytes."""
        values = np.zeros((batches, self.total_bytes), np.uint8)
        for entry in self.entries:
            if entry.key in arrays:
                dtype = np.dtype("<u4" if entry.kind == "words" else "<f4")
                content = np.ascontiguousarray(arrays[entry.key], dtype).view(np.uint8).reshape(batches, entry.bytes)
                values[:, entry.offset : entry.offset + entry.bytes] = content
        return values


def read_table(path: Path, *, kernel_sets: int, steps: int) -> TensorTable:
    """Read and check ``tensors.json``.

    Args:
        path: the file.
        kernel_sets, steps: how many the bundle has.

    Raises:
        BundleError: it cannot be read, or is not as docs/bundle.md says.
    """
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise BundleError(
                f"{path} is longer than the {_MAXIMUM_BYTES} bytes it may take; compile the bundle again."
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON, so the bundle is damaged; compile it again.") from error
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}")
        entries = tuple(_checked(row, kernel_sets, steps) for row in content["tensors"])
        if len({entry.key for entry in entries}) != len(entries):
            raise ValueError("two entries are of one value")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is damaged: {error!s}; compile the bundle again.") from error
    return TensorTable(entries)


def _checked(row: dict[str, Any], kernel_sets: int, steps: int) -> TensorEntry:
    places = tuple(Place(**place) for place in row["places"])
    entry = TensorEntry(**{**row, "shape": tuple(row["shape"]), "places": places})
    names = (entry.tensor, entry.kind, entry.layer)
    numbers = (entry.step, entry.channels, *entry.shape)
    for place in places:
        numbers += (place.offset, place.stride, place.every, place.bytes, place.blocks)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("tensor, kind and layer must be names")
    if any(type(number) is not int or not 0 <= number <= _MAXIMUM_SIZE for number in numbers):
        raise ValueError(f"the numbers of {entry.tensor!r} must be whole ones from 0 to {_MAXIMUM_SIZE}")
    if type(entry.channels_last) is not bool or type(entry.ternary) is not bool:
        raise ValueError(f"channels_last and ternary of {entry.tensor!r} must be true or false")
    words = entry.kind == "words"
    # A sign has a batch, words, and two planes if it has three values.
    lowest = 1 + words + (words and entry.ternary)
    if entry.kind not in ("words", "floats") or not lowest <= len(entry.shape) <= 32 or 0 in entry.shape:
        raise ValueError(f"{entry.tensor!r} must have a kind and a shape that fit")
    if words and (not entry.channels or entry.shape[-1] != -(-entry.channels // 32)):
        raise ValueError(f"the words of {entry.tensor!r} must hold its channels")
    if words and entry.ternary and entry.shape[min(2, len(entry.shape) - 2)] != 2:
        raise ValueError(f"the words of {entry.tensor!r} must be two planes")
    if entry.channels_last and len(entry._shape_of_signs()) != 4:
        raise ValueError(f"{entry.tensor!r} has channels last, so it must have rank 4")
    if entry.step >= steps or len(places) != kernel_sets:
        raise ValueError(f"{entry.tensor!r} must be written by a step, in each kernel set")
    for place in places:
        if place.space not in _OBSERVABLE or not place.every or place.bytes * place.blocks != entry.bytes:
            raise ValueError(f"the blocks of {entry.tensor!r} must make up the whole value")
    return entry
