"""Plans as C: what cannot run safely is refused, and text from outside cannot become code."""

from __future__ import annotations

import dataclasses

import pytest

from bnn_deploy.codegen.plan_source import check_plan, generate_plan_source
from bnn_deploy.errors import CompileError
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Step, TensorSpecification
from tests.runtime.toy_network import toy_plan

PLAN = toy_plan()


def with_step(*arguments: Argument, kernel: str = "kernel", kind: str = "float") -> ExecutionPlan:
    return dataclasses.replace(PLAN, steps=(*PLAN.steps, Step(kernel, "layer", kind, arguments)))


def with_input(*shape: int, dtype: str = "float32") -> ExecutionPlan:
    return dataclasses.replace(PLAN, inputs=(TensorSpecification("image", shape, dtype),))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (dataclasses.replace(PLAN, steps=()), "0 steps"),
        (dataclasses.replace(PLAN, outputs=()), "0 outputs"),
        (dataclasses.replace(PLAN, arena_bytes=1 << 60), "arena"),
        (dataclasses.replace(PLAN, arena_bytes=-1), "arena"),
        (with_input(), "image"),
        (with_input(2, 0), "image"),
        (with_input(*[1] * 33), "image"),
        (with_input(1 << 50), "image"),
        (with_input(2, dtype="int32;"), "image"),
        (with_step(), "0 arguments"),
        (with_step(Argument(Space.ARENA, 0), kernel="x(); abort"), "C identifier"),
        (with_step(Argument(Space.ARENA, 0), kind="fast"), "kind"),
        (with_step(Argument(Space.ARENA, 0), kernel="toy_matmul"), "called with 1 arguments, expected 3"),
        (with_step(Argument(Space.ARENA, 704)), r"arena\+704"),
        (with_step(Argument(Space.ARENA, -64)), r"arena\+-64"),
        (with_step(Argument(Space.WEIGHTS, 4)), r"weights\+4"),
        (with_step(Argument(Space.WEIGHTS, 1 << 20)), r"weights\+1048576"),
        (with_step(Argument(Space.INPUT, 384)), r"input\+384"),
        (with_step(Argument(Space.OUTPUT, 32)), r"output\+32"),
    ],
)
def test_unsafe_plans_are_refused(plan: ExecutionPlan, message: str) -> None:
    """A defect of the passes becomes a wild pointer in compiled code."""
    with pytest.raises(CompileError, match=message):
        generate_plan_source(plan)


def test_several_inputs_lie_end_to_end() -> None:
    """Offsets into the second input address the first one."""
    inputs = (TensorSpecification("a", (1, 16)), TensorSpecification("b", (1, 32)))
    step = Step("kernel", "layer", "float", tuple(Argument(Space.INPUT, offset) for offset in (0, 64, 128)))
    source = generate_plan_source(dataclasses.replace(PLAN, inputs=inputs, steps=(step,)))
    assert "memory->inputs[0] + 0u,\n        memory->inputs[1] + 0u,\n        memory->inputs[1] + 64u);" in source


def test_layer_names_stay_text() -> None:
    """A layer name out of an ONNX file injects C code through a comment or a string."""
    step = Step("kernel", '*/ int x = 1; /* "); \\\n#error', "float", (Argument(Space.ARENA, 0),))
    source = generate_plan_source(dataclasses.replace(PLAN, steps=(step,)))
    comment = next(line for line in source.splitlines() if "Step 0" in line)
    assert comment.count("*/") == 1 and comment.endswith("*/")
    assert "#error" not in [line.strip()[:6] for line in source.splitlines()]
    assert "\\042\\051\\073" not in source and "\\042" in source


def test_a_good_plan_passes() -> None:
    """The checks refuse what the passes make."""
    check_plan(PLAN)
