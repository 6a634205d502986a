"""``tensors.json``, the tensor table of a bundle as a file: written, and read with every field checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_table import Place, TensorEntry, TensorTable
from bnn_deploy.checked_fields import Fields, choice, flag, list_of, read_json, text, whole
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
    def refuse(problem: str) -> BundleError:
        return BundleError(f"{path}: {problem}; compile the bundle again.")

    fields = Fields(read_json(path, _MAXIMUM_BYTES, refuse), refuse)
    fields.take("format_version", choice(FORMAT_VERSION))
    entries = tuple(_entry(row, kernel_sets, steps) for row in fields.objects("tensors"))
    if len({entry.key for entry in entries}) != len(entries):
        raise refuse("two entries are of one value")
    return TensorTable(entries)


def _entry(fields: Fields, kernel_sets: int, steps: int) -> TensorEntry:
    fields.only([name for name in TensorEntry.__dataclass_fields__ if name != "offset"])
    entry = TensorEntry(
        tensor=fields.take("tensor", text),
        kind=fields.take("kind", choice("words", "floats")),
        layer=fields.take("layer", text),
        step=fields.take("step", whole(largest=steps - 1)),
        shape=fields.take("shape", list_of(whole(1, _MAXIMUM_SIZE), least=1, most=32)),
        channels=fields.take("channels", whole(largest=_MAXIMUM_SIZE)),
        channels_last=fields.take("channels_last", flag),
        ternary=fields.take("ternary", flag),
        places=tuple(map(_place, fields.objects("places"))),
    )
    words = entry.kind == "words"
    # A sign has a batch, words, and two planes if it has three values.
    lowest = 1 + words + (words and entry.ternary)
    if len(entry.shape) < lowest:
        raise fields.refusal("shape", f"at least {lowest} sizes")
    if words and (not entry.channels or entry.shape[-1] != -(-entry.channels // 32)):
        raise fields.refusal("channels", f"what {entry.shape[-1]} words hold")
    if words and entry.ternary and entry.shape[entry.plane_axis] != 2:
        raise fields.refusal("shape", "that of two planes")
    if entry.channels_last and len(entry.signs_shape) != 4:
        raise fields.refusal("shape", "of rank 4, as channels are last")
    if len(entry.places) != kernel_sets:
        raise fields.refusal("places", f"one for each of {kernel_sets} kernel sets")
    if any(place.bytes * place.blocks != entry.bytes for place in entry.places):
        raise fields.refusal("places", f"blocks of {entry.bytes} bytes in all")
    return entry


def _place(fields: Fields) -> Place:
    number = whole(largest=_MAXIMUM_SIZE)
    fields.only(list(Place.__dataclass_fields__))
    return Place(
        space=fields.take("space", choice(*sorted(_OBSERVABLE))),
        offset=fields.take("offset", number),
        stride=fields.take("stride", number),
        every=fields.take("every", whole(1, _MAXIMUM_SIZE)),
        bytes=fields.take("bytes", number),
        blocks=fields.take("blocks", number),
    )
