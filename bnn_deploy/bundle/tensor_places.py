"""Where the kernels of a plan write the values of its ONNX file: the content of a bundle's ``tensors.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bnn_deploy.bundle.tensor_table import FORMAT_VERSION, Place, TensorEntry
from bnn_deploy.plan import ExecutionPlan


def table_text(plan: ExecutionPlan) -> str:
    """The content of ``tensors.json`` for a plan."""
    rows = [_row(entry) for entry in _entries(plan)]
    return json.dumps({"format_version": FORMAT_VERSION, "tensors": rows}, ensure_ascii=False) + "\n"


def _entries(plan: ExecutionPlan) -> Iterable[TensorEntry]:
    values = {(value.tensor, value.kind, value.channels_last): value for value in plan.values}
    blocks = [stage.blocks for stage in plan.schedule for _ in range(stage.step_count)]
    written = Counter((result.tensor, result.kind) for step in plan.steps for result in step.results)
    for index, step in enumerate(plan.steps):
        for result in step.results:
            key = result.tensor, result.kind
            places = []
            for kernel_set in plan.kernel_sets:
                other = kernel_set.steps[index]
                for found in other.results:
                    if (found.tensor, found.kind) == key:
                        a = other.arguments[found.argument]
                        places.append(Place(a.space.value, a.offset, a.stride, a.every, found.bytes, blocks[index]))
            value = values.get((*key, result.channels_last))
            # What is computed twice, or by the kernels of one set only, has no one place.
            if value is None or written[key] != 1 or len(places) != len(plan.kernel_sets):
                continue
            entry = TensorEntry(
                tensor=value.tensor,
                kind=value.kind,
                layer=value.layer,
                step=index,
                shape=value.shape,
                channels=value.channels,
                channels_last=value.channels_last,
                ternary=value.ternary,
                places=tuple(places),
            )
            if all(place.bytes * place.blocks == entry.bytes for place in places):
                yield entry


def _row(entry: TensorEntry) -> dict[str, Any]:
    row = {**vars(entry), "shape": list(entry.shape), "places": [vars(place) for place in entry.places]}
    del row["offset"]
    return row
