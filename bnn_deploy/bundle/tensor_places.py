"""Where the kernels of a plan write the values of its ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bnn_deploy.bundle.tensor_table import Place, TensorEntry
from bnn_deploy.plan import ExecutionPlan


def written_values(plan: ExecutionPlan) -> Iterator[TensorEntry]:
    """The values that have one place in each kernel set, in the order of the steps that write them."""
    values = {(value.tensor, value.kind, value.channels_last): value for value in plan.values}
    blocks = [stage.blocks for stage in plan.schedule for _ in range(stage.step_count)]
    written = Counter((result.tensor, result.kind) for step in plan.steps for result in step.results)
    for index, step in enumerate(plan.steps):
        for result in step.results:
            key = result.tensor, result.kind
            value = values.get((*key, result.channels_last))
            places = _places(plan, index, key, blocks[index])
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
                places=places,
            )
            if all(place.bytes * place.blocks == entry.bytes for place in places):
                yield entry


def _places(plan: ExecutionPlan, step: int, key: tuple[str, str], blocks: int) -> tuple[Place, ...]:
    """Where the kernels of a step write a value, those of one kernel set after the other."""
    places = []
    for kernel_set in plan.kernel_sets:
        calls = kernel_set.steps[step]
        for result in calls.results:
            if (result.tensor, result.kind) == key:
                a = calls.arguments[result.argument]
                places.append(Place(a.space.value, a.offset, a.stride, a.every, result.bytes, blocks))
    return tuple(places)
