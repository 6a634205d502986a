"""fold_threshold: x + b > 0 becomes x > -b, bit for bit, and only where it may."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, per_channel, sign, ternary

IMAGE = (2, 3, 4, 4)
BIAS = (0.5, -0.25, 2.0)


def test_constant_bias_becomes_the_threshold() -> None:
    """Breaks: a bias costs an addition over the whole image, or moves the threshold the wrong way."""
    before = build([IMAGE], lambda emit, x: sign(relax.op.add(x, per_channel(BIAS))))
    expected = build([IMAGE], lambda emit, x: sign(x, per_channel([-b for b in BIAS])))
    tvm.ir.assert_structural_equal(fold_threshold(before), expected)


def test_bias_on_the_left_is_folded_too() -> None:
    """Breaks: Add(bias, x), as ONNX may write it, is not recognised or the operands are confused."""
    before = build([IMAGE], lambda emit, x: sign(relax.op.add(per_channel(BIAS), x), zero=1))
    expected = build([IMAGE], lambda emit, x: sign(x, per_channel([-b for b in BIAS]), zero=1))
    tvm.ir.assert_structural_equal(fold_threshold(before), expected)


def test_subtracted_bias_is_the_threshold_itself() -> None:
    """Breaks: Sub gets the sign of Add."""
    before = build([IMAGE], lambda emit, x: sign(relax.op.subtract(x, per_channel(BIAS))))
    expected = build([IMAGE], lambda emit, x: sign(x, per_channel(BIAS)))
    tvm.ir.assert_structural_equal(fold_threshold(before), expected)


@pytest.mark.parametrize("shape", [IMAGE, (1, 3, 4, 4)], ids=str)
@pytest.mark.parametrize(
    "bias", [np.float32(0.5), np.full(1, 0.5), np.full((3, 1, 1), 0.5)], ids=lambda bias: str(bias.shape)
)
def test_bias_of_fewer_axes_is_folded(shape: tuple[int, ...], bias: np.ndarray) -> None:
    """Breaks: a bias written as (C, 1, 1), or as one number, goes into a batch norm before it and is rounded there."""
    before = build([shape], lambda emit, x: sign(relax.op.add(x, constant(bias))))
    expected = build([shape], lambda emit, x: sign(x, constant(-bias)))
    tvm.ir.assert_structural_equal(fold_threshold(before), expected)


def test_computed_bias_per_image_is_negated_at_run_time() -> None:
    """Breaks: BCDNet's thresholds, computed per image and channel, keep their addition over the image."""
    shapes = [IMAGE, (2, 3, 1, 1)]
    before = build(shapes, lambda emit, x, b: sign(relax.op.add(x, b)))
    expected = build(shapes, lambda emit, x, b: sign(x, relax.op.negative(b)))
    tvm.ir.assert_structural_equal(fold_threshold(before), expected)


def test_the_sum_stays_where_something_else_reads_it() -> None:
    """Breaks: a shortcut that starts between bias and sign loses the bias."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        total = emit(relax.op.add(x, per_channel(BIAS)))
        return relax.op.add(emit(sign(total)), total)

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        total = emit(relax.op.add(x, per_channel(BIAS)))
        return relax.op.add(emit(sign(x, per_channel([-b for b in BIAS]))), total)

    tvm.ir.assert_structural_equal(fold_threshold(build([IMAGE], before)), build([IMAGE], expected))


@pytest.mark.parametrize(
    ("shapes", "body"),
    [
        ([IMAGE], lambda emit, x: sign(relax.op.add(x, per_channel(BIAS)), 0.5)),
        ([IMAGE], lambda emit, x: sign(relax.op.add(x, per_channel(BIAS)), per_channel(BIAS))),
        ([IMAGE], lambda emit, x: ternary(relax.op.add(x, per_channel(BIAS)))),
        ([IMAGE], lambda emit, x: sign(relax.op.add(x, constant(np.ones((1, 1, 4, 1)))))),
        ([IMAGE, IMAGE], lambda emit, x, y: sign(relax.op.add(x, y))),
        ([(2, 5), (2, 5)], lambda emit, x, y: sign(relax.op.add(x, y))),
        ([(1, 4, 5), (1, 4, 5)], lambda emit, x, y: sign(relax.op.add(x, y))),
        ([(2, 3, 1, 1), IMAGE], lambda emit, x, y: sign(relax.op.add(x, y))),
        ([IMAGE], lambda emit, x: sign(relax.op.subtract(per_channel(BIAS), x))),
        ([IMAGE], lambda emit, x: sign(relax.op.multiply(x, per_channel(BIAS)))),
    ],
    ids=[
        "threshold",
        "threshold per channel",
        "ternary",
        "bias over space",
        "residual image",
        "residual rows",
        "residual tokens",
        "image as bias of a pixel",
        "bias minus x",
        "scale",
    ],
)
def test_everything_else_is_left_alone(shapes: list, body: object) -> None:
    """Breaks: a fold that rounds, broadcasts wrongly, or makes thresholds that no kernel can compare with."""
    before = build(shapes, body)
    tvm.ir.assert_structural_equal(fold_threshold(before), before)


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
SMALLEST = float(np.float32(1e-45))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FLOATS, FINITE), min_size=1, max_size=20), st.sampled_from([-1, 0, 1]), st.booleans())
@example([(-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0), (0.0, 0.0)], -1, False)
@example([(-0.0, 0.0), (0.0, -0.0), (-0.0, -0.0), (0.0, 0.0)], 1, True)
@example([(-0.0, 0.0), (0.0, -0.0), (SMALLEST, -SMALLEST), (-SMALLEST, SMALLEST), (float("nan"), 0.5)], 0, False)
@example([(-0.0, 0.0), (0.0, -0.0), (SMALLEST, SMALLEST), (1e-45, 3e-45), (float("inf"), 3.4e38)], 0, True)
@example([(SMALLEST, -SMALLEST), (-SMALLEST, SMALLEST), (2 * SMALLEST, -SMALLEST), (0.0, SMALLEST)], -1, False)
@example([(1.5, -1.5), (-1.5, 1.5), (float("nan"), 1.0), (float("inf"), -1.0), (-float("inf"), 1.0)], 1, False)
@example([(3.4e38, 3.4e38), (-3.4e38, -3.4e38), (1.0, -float(np.nextafter(np.float32(1), np.float32(2))))], -1, False)
def test_exact_in_float32(pairs: list[tuple[float, float]], zero: int, subtract: bool) -> None:
    """Breaks: the compiled sign differs from PyTorch's at -0.0, NaN, subnormals, overflow or x == threshold."""
    x, bias = (np.array(column, np.float32).reshape(1, -1, 1, 1) for column in zip(*pairs, strict=True))
    operator = relax.op.subtract if subtract else relax.op.add
    before = build([x.shape], lambda emit, v: sign(operator(v, constant(bias)), zero=zero))
    after = fold_threshold(before)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = evaluate(before, x, precision=np.float32)
    np.testing.assert_array_equal(evaluate(after, x, precision=np.float32), expected)
