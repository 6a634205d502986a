"""gather_shifts: rolls of words become one gather per layer that takes every word from the right pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.passes.relax.gather_shifts import gather_shifts
from bnn_deploy.targets.registry import host_target
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_plan
from tests.passes.networks import build, constant, convolution, geometry, operators, roll, take

HEIGHT, WIDTH, CHANNELS = 4, 3, 128
SHAPE = (2, HEIGHT, WIDTH, CHANNELS)


def words_of(emit: Callable, x: relax.Expr) -> relax.Var:
    return emit(call("bnn.sign_pack", [x, constant([0.5])], {"zero": -1}))


def layer(words: relax.Expr, seed: int = 0, kernel: tuple[int, int] = (1, 1)) -> relax.Call:
    pads = (kernel[0] // 2, kernel[1] // 2) * 2
    return convolution(
        words, 16, geometry(CHANNELS, kernel, pads=pads, channels_last=1), seed=seed, name="bnn.packed_conv2d"
    )


def shift_block(emit: Callable, x: relax.Expr, shift: int) -> relax.Var:
    """BCDNet's ShiftBlock: quarters of the channels rolled up, down, left and right."""
    words = words_of(emit, x)
    quarters = [emit(take(words, 3, i, i + 1)) for i in range(4)]
    rolled = [
        emit(roll(quarters[0], 1, shift, HEIGHT)),
        emit(roll(quarters[1], 1, HEIGHT - shift, HEIGHT)),
        emit(roll(quarters[2], 2, shift % WIDTH, WIDTH)),
        emit(roll(quarters[3], 2, -shift % WIDTH, WIDTH)),
    ]
    return emit(relax.op.concat(rolled, axis=3))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, SHAPE).astype("float32")


@pytest.mark.parametrize("shift", [1, 2])
def test_rolled_quarters_are_one_gather(shift: int) -> None:
    """Breaks: the branches of a ShiftBlock are copied word by word through ten kernels, or rolled the wrong way."""
    before = build([SHAPE], lambda emit, x: layer(shift_block(emit, x, shift)))
    after = gather_shifts(before)
    assert operators(after) == ["bnn.sign_pack", "bnn.shift_words", "bnn.packed_conv2d"]
    np.testing.assert_array_equal(evaluate(after, image()), evaluate(before, image()))


def test_branches_are_computed_as_the_network_says(tmp_path: Path) -> None:
    """Breaks: a gather within a stage takes words of another block, image or edge."""

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        one, two = shift_block(emit, x, 1), shift_block(emit, x, 2)
        return relax.op.add(emit(layer(one, 1)), emit(layer(two, 2, (3, 3))))

    module = build([SHAPE], body)
    lowered = lower_packed(gather_shifts(module), host_target())
    assert [step.kernel for step in lowered.plan.steps if "slice" in step.kernel or "concat" in step.kernel] == []
    found = run_plan(lowered, host_target(), image(), tmp_path)
    np.testing.assert_array_equal(found, evaluate(module, image()))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_chain_of_moves(data: st.DataObject) -> None:
    """Breaks: moves of moves, of parts, or back to where they came from take words from the wrong place."""

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        words = words_of(emit, x)
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["rows", "columns", "rotate", "swap"]))
            if kind == "rows":
                words = emit(roll(words, 1, data.draw(st.integers(1, HEIGHT - 1)), HEIGHT))
            elif kind == "columns":
                words = emit(roll(words, 2, data.draw(st.integers(1, WIDTH - 1)), WIDTH))
            else:
                cut = data.draw(st.integers(1, 3))
                low, high = emit(take(words, 3, 0, cut)), emit(take(words, 3, cut, 4))
                if kind == "rotate":
                    low = emit(roll(low, 1, 1, HEIGHT))
                words = emit(relax.op.concat([high, low], axis=3))
        return layer(words)

    before = build([SHAPE], body)
    after = gather_shifts(before)
    assert operators(after)[1:] == ["bnn.shift_words", "bnn.packed_conv2d"]
    np.testing.assert_array_equal(evaluate(after, image()), evaluate(before, image()))


def test_other_movement_stays() -> None:
    """Breaks: a crop, or a concatenation of two tensors, is taken for a roll."""

    def crop(emit: Callable, x: relax.Expr) -> relax.Expr:
        words = words_of(emit, x)
        halves = [emit(take(words, 1, 2, 4)), emit(take(words, 1, 0, 1))]
        return layer(emit(relax.op.concat(halves, axis=1)))

    def two_tensors(emit: Callable, x: relax.Expr) -> relax.Expr:
        first, second = words_of(emit, x), words_of(emit, emit(relax.op.negative(x)))
        return layer(emit(relax.op.concat([emit(take(first, 3, 0, 2)), emit(take(second, 3, 2, 4))], axis=3)))

    for body in (crop, two_tensors):
        assert "bnn.shift_words" not in operators(gather_shifts(build([SHAPE], body)))
