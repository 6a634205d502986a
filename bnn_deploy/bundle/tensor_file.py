"""``tensors.json``, the tensor table of a bundle as a file: written, and read with every field checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_table import Place, TensorEntry, TensorTable
from bnn_deploy.errors import BundleError
from bnn_deploy.plan import Space

NAME = "tensors.json"
FORMAT_VERSION = 1
_MAXIMUM_BYTES = 64 << 20
_MAXIMUM_SIZE = 1 << 40
_OBSERVABLE = {space.value for space in (Space.OUTPUT, Space.ARENA, Space.WORKSPACE)}


def table_text(entries: Iterable[TensorEntry]) -> str:
    """The content of the file."""
    rows = [_row(entry) for entry in entries]
    return json.dumps({"format_version": FORMAT_VERSION, "tensors": rows}, ensure_ascii=False) + "\n"


def open_table(bundle: Bundle) -> TensorTable:
    """The table of a bundle.

    Raises:
        BundleError: it has none, or a damaged one.
    """
    if NAME not in bundle.manifest["files"]:
        raise BundleError(
            f"The bundle {bundle.path} does not say where its layers' values are: it was compiled by an older "
            "bnn-deploy; compile it again, or validate with --level 3 only."
        )
    return _read_table(bundle.path / NAME, kernel_sets=len(bundle.kernel_sets), steps=len(bundle.steps))


def _row(entry: TensorEntry) -> dict[str, Any]:
    row = {**vars(entry), "shape": list(entry.shape), "places": [vars(place) for place in entry.places]}
    del row["offset"]
    return row


def _read_table(path: Path, *, kernel_sets: int, steps: int) -> TensorTable:
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
    if words and entry.ternary and entry.shape[entry.plane_axis] != 2:
        raise ValueError(f"the words of {entry.tensor!r} must be two planes")
    if entry.channels_last and len(entry.signs_shape) != 4:
        raise ValueError(f"{entry.tensor!r} has channels last, so it must have rank 4")
    if entry.step >= steps or len(places) != kernel_sets:
        raise ValueError(f"{entry.tensor!r} must be written by a step, in each kernel set")
    for place in places:
        if place.space not in _OBSERVABLE or not place.every or place.bytes * place.blocks != entry.bytes:
            raise ValueError(f"the blocks of {entry.tensor!r} must make up the whole value")
    return entry
