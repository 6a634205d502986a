"""fold_affine: batch norms, scales and biases disappear into the layer before them, up to the rounding of constants."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.passes.relax.fold_affine import fold_affine
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, convolution, geometry, linear, operators, per_channel, sign

IMAGE = (1, 3, 4, 4)
ALPHA, BETA = np.array([2.0, 0.5]), np.array([1.0, -3.0])


def binary(x: relax.Expr, scale: object = None, shift: object = None) -> relax.Call:
    """2 output channels of IMAGE."""
    return convolution(sign(x), 2, geometry(3), scale, shift)


def batch_norm(
    x: relax.Expr, gamma: object, beta: object, mean: object, variance: object, **kwargs: object
) -> relax.Expr:
    """First result of relax.nn.batch_norm, epsilon 0 unless given, in inference mode."""
    parameters = [constant(p) for p in (gamma, beta, mean, variance)]
    options = {"axis": 1, "epsilon": 0.0, "training": False, **kwargs}
    return relax.TupleGetItem(relax.op.nn.batch_norm(x, *parameters, **options), 0)


def test_scale_becomes_the_layers_scale() -> None:
    """Breaks: the Mul by mean(abs(weight)) after every binary layer stays a pass over the image."""
    before = build([IMAGE], lambda emit, x: relax.op.multiply(binary(x), per_channel(ALPHA)))
    tvm.ir.assert_structural_equal(fold_affine(before), build([IMAGE], lambda emit, x: binary(x, ALPHA)))


@pytest.mark.parametrize(
    ("operator", "scale", "shift"),
    [
        (lambda y, c: relax.op.add(y, c), (1, 1), (2.0, -0.5)),
        (lambda y, c: relax.op.add(c, y), (1, 1), (2.0, -0.5)),
        (lambda y, c: relax.op.subtract(y, c), (1, 1), (-2.0, 0.5)),
        (lambda y, c: relax.op.subtract(c, y), (-1, -1), (2.0, -0.5)),
        (lambda y, c: relax.op.divide(y, c), (0.5, -2.0), (0, 0)),
        (lambda y, c: relax.op.multiply(c, y), (2.0, -0.5), (0, 0)),
    ],
    ids=["add", "add left", "subtract", "subtract left", "divide", "multiply left"],
)
def test_each_operator_has_its_own_scale_and_shift(operator: object, scale: tuple, shift: tuple) -> None:
    """Breaks: Sub or Div folds with the wrong sign or reciprocal."""
    before = build([IMAGE], lambda emit, x: operator(binary(x), per_channel([2.0, -0.5])))
    tvm.ir.assert_structural_equal(fold_affine(before), build([IMAGE], lambda emit, x: binary(x, scale, shift)))


def test_order_of_scale_and_bias_counts() -> None:
    """Breaks: (y + b) * a folds like y * a + b."""
    before = build(
        [IMAGE], lambda emit, x: relax.op.multiply(relax.op.add(binary(x), per_channel(BETA)), per_channel(ALPHA))
    )
    tvm.ir.assert_structural_equal(fold_affine(before), build([IMAGE], lambda emit, x: binary(x, ALPHA, ALPHA * BETA)))


def test_batch_norm_with_negative_gamma_folds() -> None:
    """Breaks: a negative gamma loses its sign, or mean, variance and epsilon are mixed up."""
    gamma, beta, mean, variance = (
        np.array([-4.0, 3.0]),
        np.array([1.0, 2.0]),
        np.array([5.0, -1.0]),
        np.array([3.0, 0.0]),
    )

    def before(emit: object, x: relax.Var) -> relax.Expr:
        return batch_norm(relax.op.multiply(binary(x), per_channel(ALPHA)), gamma, beta, mean, variance, epsilon=1.0)

    # sqrt(variance + 1) is 2 and 1.
    scale = np.array([-4.0, 3.0]) / np.array([2.0, 1.0])
    expected = build([IMAGE], lambda emit, x: binary(x, ALPHA * scale, beta - mean * scale))
    tvm.ir.assert_structural_equal(fold_affine(build([IMAGE], before)), expected)


def test_tap_scales_are_all_multiplied_and_the_shift_is_not_repeated() -> None:
    """Breaks: released BiMLP layers scale only their first tap, or add the shift once per tap."""
    taps = np.arange(1.0, 7.0).reshape(2, 3)

    def layer(x: relax.Expr, scale: object, shift: object) -> relax.Call:
        return convolution(sign(x), 2, geometry(3, (1, 3)), scale, shift, "bnn.tap_scaled_conv2d")

    def before(emit: object, x: relax.Var) -> relax.Expr:
        return relax.op.multiply(relax.op.add(layer(x, taps, np.ones(2)), per_channel(BETA)), per_channel(ALPHA))

    expected = build([IMAGE], lambda emit, x: layer(x, taps * ALPHA[:, None], ALPHA * (1 + BETA)))
    tvm.ir.assert_structural_equal(fold_affine(build([IMAGE], before)), expected)


def test_float_convolution_takes_the_scale_into_its_weights() -> None:
    """Breaks: the stem's batch norm costs two passes over the largest image, or scales input channels."""
    weight = np.arange(2 * 3 * 9, dtype="float32").reshape(2, 3, 3, 3)

    def before(emit: object, x: relax.Var) -> relax.Expr:
        return batch_norm(relax.op.nn.conv2d(x, constant(weight)), ALPHA, BETA, np.zeros(2), np.ones(2))

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        scaled = relax.op.nn.conv2d(x, constant(weight * ALPHA.reshape(2, 1, 1, 1)))
        return relax.op.add(scaled, per_channel(BETA))

    tvm.ir.assert_structural_equal(fold_affine(build([IMAGE], before)), build([IMAGE], expected))


def test_without_a_layer_it_is_one_multiply_and_one_add() -> None:
    """Breaks: batch norms after a pool or an addition cost four operators."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        return batch_norm(relax.op.nn.relu(x), [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        scaled = relax.op.multiply(relax.op.nn.relu(x), per_channel([1, 2, 3]))
        return relax.op.add(scaled, per_channel([3, 3, 3]))

    tvm.ir.assert_structural_equal(fold_affine(build([IMAGE], before)), build([IMAGE], expected))


def test_a_value_read_twice_keeps_its_own_scale() -> None:
    """Breaks: the shortcut that starts after the convolution is scaled by a batch norm that it never saw."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        y = emit(binary(x))
        return relax.op.add(relax.op.multiply(y, per_channel(ALPHA)), y)

    module = build([IMAGE], before)
    tvm.ir.assert_structural_equal(fold_affine(module), module)


def test_a_scaled_value_read_twice_is_made_once() -> None:
    """Breaks: y * a + b is folded through y * a although a shortcut reads y * a, which doubles the layer's work."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        scaled = emit(relax.op.multiply(binary(x), per_channel(ALPHA)))
        return relax.op.maximum(relax.op.add(scaled, per_channel(BETA)), scaled)

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        scaled = emit(binary(x, ALPHA))
        return relax.op.maximum(relax.op.add(scaled, per_channel(BETA)), scaled)

    tvm.ir.assert_structural_equal(fold_affine(build([IMAGE], before)), build([IMAGE], expected))


@pytest.mark.parametrize(
    ("shapes", "body"),
    [
        ([IMAGE], lambda emit, x: relax.op.multiply(binary(x), constant(np.ones((1, 1, 4, 1)) * 2))),
        ([IMAGE], lambda emit, x: relax.op.add(binary(x), constant(np.ones((2, 2, 1, 1))))),
        ([IMAGE, (1, 2, 1, 1)], lambda emit, x, a: relax.op.multiply(binary(x), a)),
        ([(1, 4, 3)], lambda emit, x: relax.op.multiply(linear(sign(x), 3, 2), constant([2.0, 3.0]))),
        ([IMAGE], lambda emit, x: relax.op.divide(per_channel([1.0, 2.0, 3.0]), x)),
        ([(1, 1, 4, 4)], lambda emit, x: relax.op.multiply(x, per_channel([1.0, 2.0, 3.0]))),
    ],
    ids=["scale over space", "bias per image", "computed scale", "tokens", "reciprocal", "broadcast of x"],
)
def test_everything_else_is_left_alone(shapes: list, body: object) -> None:
    """Breaks: a constant that is not per channel, or that is not constant, is folded as if it were."""
    before = build(shapes, body)
    tvm.ir.assert_structural_equal(fold_affine(before), before)


@pytest.mark.parametrize("options", [{"axis": 3}, {"training": True}], ids=["other axis", "training mode"])
def test_other_batch_norms_are_left_alone(options: dict) -> None:
    """Breaks: statistics of another axis, or of the batch itself, are treated as constants per channel."""
    size = 4 if "axis" in options else 2
    ones = np.ones(size)
    before = build([IMAGE], lambda emit, x: batch_norm(binary(x), 2 * ones, ones, ones, ones, **options))
    tvm.ir.assert_structural_equal(fold_affine(before), before)


def test_axis_1_of_a_linear_layers_image_is_not_its_outputs() -> None:
    """Breaks: a (1, A, 1, 1) factor after BinaryLinear on (N, A, B, K) with A outputs is folded into the outputs."""
    factor = per_channel([2.0, 3.0, 4.0])
    before = build([(1, 3, 2, 5)], lambda emit, x: relax.op.multiply(linear(sign(x), 5, 3), factor))
    tvm.ir.assert_structural_equal(fold_affine(before), before)


def test_linear_layer_of_rows_folds() -> None:
    """Breaks: the scale of a binary head stays a pass of its own."""
    before = build([(2, 5)], lambda emit, x: relax.op.multiply(linear(sign(x), 5, 2), constant(ALPHA)))
    expected = build([(2, 5)], lambda emit, x: linear(sign(x), 5, 2, ALPHA))
    tvm.ir.assert_structural_equal(fold_affine(before), expected)


STEPS = ("add", "subtract", "multiply", "divide", "reverse", "batch_norm")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 2**32 - 1), st.booleans())
def test_function_is_kept_up_to_the_rounding_of_constants(steps: list[str], seed: int, float_layer: bool) -> None:
    """Breaks: some chain of operators folds to a different function."""
    random = np.random.default_rng(seed)
    channels = 4
    # (operator, per-channel constants) and the chain's exact scale and shift, with the magnitude of every term.
    chosen = [(step, [_constants(random, channels) for _ in range(4)]) for step in steps]
    weight = random.normal(size=(channels, 3, 3, 3)).astype("float32")

    def body(emit: object, x: relax.Var) -> relax.Expr:
        binary_layer = convolution(sign(x), channels, geometry(3, (3, 3)))
        y = relax.op.nn.conv2d(x, constant(weight)) if float_layer else binary_layer
        for step, values in chosen:
            y = _step(step, emit(y), values)
        return y

    before = build([IMAGE], body)
    after = fold_affine(before)
    layer = ["relax.nn.conv2d"] if float_layer else ["bnn.sign", "bnn.conv2d"]
    assert [name for name in operators(after) if not float_layer or name != "relax.add"] == layer
    x = random.normal(size=IMAGE)
    expected, found = evaluate(before, x), evaluate(after, x)
    # Both are evaluated in float64, so they differ by the one rounding of each folded constant to float32, relative error
    # u = 2**-24: of the scale (or weight), times the sum of abs(input * weight) <= `reach`, and of the shift. 1 % for float64.
    scale, shift = np.ones(channels), np.zeros(channels)
    for step, values in chosen:
        a, b = _scale_and_shift(step, values)
        scale, shift = scale * a, shift * a + b
    reach = np.abs(weight).sum((1, 2, 3)) * np.abs(x).max() if float_layer else np.full(channels, 27.0)
    bound = 1.01 * 2.0**-24 * (np.abs(scale) * reach + np.abs(shift))
    assert (np.abs(found - expected).max((0, 2, 3)) <= bound).all(), (np.abs(found - expected).max((0, 2, 3)), bound)


def _constants(random: np.random.Generator, channels: int) -> np.ndarray:
    return (random.uniform(0.5, 2, channels) * random.choice([-1, 1], channels)).astype("float32")


def _step(step: str, y: relax.Expr, values: list[np.ndarray]) -> relax.Expr:
    if step == "batch_norm":
        return batch_norm(y, values[0], values[1], values[2], np.abs(values[3]), epsilon=1e-5)
    if step == "reverse":
        return relax.op.subtract(per_channel(values[0]), y)
    return getattr(relax.op, step)(y, per_channel(values[0]))


def _scale_and_shift(step: str, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    v, one, zero = values[0].astype(np.float64), np.ones(len(values[0])), np.zeros(len(values[0]))
    if step == "batch_norm":
        gamma, beta, mean, variance = (value.astype(np.float64) for value in values)
        a = gamma / np.sqrt(np.abs(variance) + 1e-5)
        return a, beta - mean * a
    table = {
        "add": (one, v),
        "subtract": (one, -v),
        "multiply": (v, zero),
        "divide": (1 / v, zero),
        "reverse": (-one, v),
    }
    return table[step]
