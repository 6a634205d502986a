"""Where a bundle's network holds the values of its ONNX file while it runs, and arrays made from the bytes.

Every value that a kernel call writes and nothing else writes is an entry, in the order of the calls. Observing them
(``devices.base.Session.run_tapped``) is how ``validate`` finds the first wrong layer; forcing them gives a layer the reference's
input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from bnn_deploy.bits import as_words, pack_bits, plane_axis, unpack_bits
from bnn_deploy.errors import InputError
from bnn_deploy.plan import Space

_ITEM_BYTES = 4
# As ``bnn_run_tapped`` of bnn_model.h numbers them.
SPACES = (Space.INPUT, Space.OUTPUT, Space.WEIGHTS, Space.ARENA, Space.WORKSPACE)
TAP_NUMBERS = 9  # BNN_TAP_NUMBERS of bnn_model.h

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
        shape = self.signs_shape
        return (shape[0], shape[3], *shape[1:3]) if self.channels_last else shape

    @property
    def signs_shape(self) -> tuple[int, ...]:
        """The shape in memory, with channels in the place of words and without planes."""
        if self.kind != "words":
            return self.shape
        shape = [*self.shape[:-1], self.channels]
        if self.ternary:
            del shape[self.plane_axis]
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
        return np.stack(planes, axis=self.plane_axis)

    @property
    def plane_axis(self) -> int:
        """Where a ternary value has its two planes: see ``bits.plane_axis``."""
        return plane_axis(len(self.shape) - 1)

    def _signs(self, words: np.ndarray) -> np.ndarray:
        bits = unpack_bits(np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8), self.channels)
        if not self.ternary:
            return bits
        nonzero, positive = (np.take(bits, plane, axis=self.plane_axis) for plane in (0, 1))
        signs: np.ndarray = np.where(nonzero > 0, positive, np.int8(0)).astype(np.int8)
        return signs


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
        return np.array(rows, np.int64).reshape(-1, TAP_NUMBERS)

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
