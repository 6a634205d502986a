"""Every operator three ways: its definition, its numpy reference, and its ONNX function body under onnxruntime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.bits import pack_bits
from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.registry import OPERATORS, functions
from tests.ops.node_model import node_model, run_function, run_reference

TINY = np.float32(1e-45)  # the smallest denormal
SPECIALS = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, TINY, -TINY, 1.0, -1.0, 0.5, -0.5], np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """X of -1, 0, +1 (and -0.0), W of +-1 (O, kh, kw, C/g), attributes; channels rarely fill a byte."""
    group = draw(st.integers(1, 3))
    group_channels = draw(st.sampled_from([1, 2, 3, 5, 8, 11]))
    outputs = group * draw(st.integers(1, 4))
    kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 7))]
    pads = [draw(st.integers(0, 3)) for _ in range(4)]
    smallest = [max(1, kernel[axis] - pads[axis] - pads[axis + 2]) for axis in (0, 1)]
    size = [low + draw(st.integers(0, 6)) for low in smallest]
    batch = draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.choice(np.array([-1, 0, -0.0, 1], np.float32), size=(batch, group * group_channels, *size))
    w = random.choice(np.array([-1, 1]), size=(outputs, *kernel, group_channels))
    attributes = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 3))],
        "pads": pads,
        "group": group,
        "in_channels": group * group_channels,
    }
    return x, w, attributes


def pack_rows(weights: np.ndarray) -> np.ndarray:
    return pack_bits(weights.reshape(len(weights), -1))


def direct_convolution(x: np.ndarray, w: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    """The definition, one product at a time; taps outside the image contribute nothing."""
    (top, left, bottom, right), (row_step, column_step) = attributes["pads"], attributes["strides"]
    outputs, height, width, group_channels = w.shape
    per_group = outputs // attributes["group"]
    rows = (x.shape[2] + top + bottom - height) // row_step + 1
    columns = (x.shape[3] + left + right - width) // column_step + 1
    y = np.zeros((x.shape[0], outputs, rows, columns), np.int64)
    for n, o, r, c in np.ndindex(*y.shape):
        for i, j, k in np.ndindex(height, width, group_channels):
            row, column = r * row_step + i - top, c * column_step + j - left
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                y[n, o, r, c] += int(x[n, (o // per_group) * group_channels + k, row, column]) * int(w[o, i, j, k])
    return y


def test_convolution_follows_its_definition() -> None:
    """Breaks when the reference and the body agree on a wrong weight order, group order, stride or padding value."""
    random = np.random.default_rng(7)
    x = random.choice(np.array([-1, 0, 1], np.float32), size=(2, 6, 4, 5))
    w = random.choice(np.array([-1, 1]), size=(4, 3, 2, 3))
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 2, 1], "group": 2, "in_channels": 6}
    expected = direct_convolution(x, w, attributes)
    assert np.array_equal(run_reference("BinaryConv", [x, pack_rows(w)], attributes), expected)
    assert np.array_equal(run_function("BinaryConv", [x, pack_rows(w)], attributes), expected)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_convolution_body_is_the_reference(case: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    """Breaks when onnxruntime's integers differ anywhere from the reference's: shapes, groups, strides, pads, tails."""
    x, w, attributes = case
    reference = run_reference("BinaryConv", [x, pack_rows(w)], attributes)
    assert reference.dtype == np.float32
    assert np.array_equal(run_function("BinaryConv", [x, pack_rows(w)], attributes), reference)


@settings(max_examples=25, deadline=None)
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_tap_scaled_convolution_body_is_the_reference(
    case: tuple[np.ndarray, np.ndarray, dict[str, Any]], seed: int
) -> None:
    """Breaks when a tap gets another tap's scale, or the sum over taps loses more than its rounding."""
    x, w, attributes = case
    outputs, height, width, group_channels = w.shape
    scale = np.random.default_rng(seed).normal(size=(outputs, height * width)).astype(np.float32)
    arrays = [x, pack_rows(w), scale]
    reference = run_reference("TapScaledBinaryConv", arrays, attributes)
    # The body adds K products, each exactly +-scale or 0, in float32: at most K - 1 roundings of partial sums that are
    # never larger than the sum of abs(scale); the reference adds one rounding of its own.
    bound = height * width * group_channels * 2.0**-24 * np.abs(scale.astype(np.float64)).sum(1) * group_channels
    error = np.abs(run_function("TapScaledBinaryConv", arrays, attributes).astype(np.float64) - reference)
    assert np.all(error <= bound[None, :, None, None])
    # And the definition: tap by tap, each the plain convolution with that tap's weights alone.
    total = np.zeros(reference.shape, np.float64)
    for tap, (i, j) in enumerate(itertools.product(range(height), range(width))):
        padded = np.pad(x, ((0, 0), (0, 0), *zip(attributes["pads"][:2], attributes["pads"][2:], strict=True)))
        window = padded[:, :, i : padded.shape[2] - height + 1 + i, j : padded.shape[3] - width + 1 + j]
        single = {**attributes, "kernel_shape": [1, 1], "pads": [0, 0, 0, 0]}
        product = run_reference("BinaryConv", [window, pack_rows(w[:, i, j])], single)
        total += scale[None, :, tap, None, None].astype(np.float64) * product
    assert np.array_equal(total.astype(np.float32), reference)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 5),
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_linear_body_and_reference_are_the_definition(
    features: int, outputs: int, leading: list[int], seed: int
) -> None:
    """Breaks when BinaryLinear reads another bit for a weight, for any rank and any number of features."""
    random = np.random.default_rng(seed)
    x = random.choice(np.array([-1, 0, 1], np.float32), size=(*leading, features))
    w = random.choice(np.array([-1, 1]), size=(outputs, features))
    expected = np.einsum("...k,ok->...o", x.astype(np.int64), w)
    attributes = {"in_features": features}
    assert np.array_equal(run_reference("BinaryLinear", [x, pack_bits(w)], attributes), expected)
    assert np.array_equal(run_function("BinaryLinear", [x, pack_bits(w)], attributes), expected)


@pytest.mark.parametrize("zero", [-1, 0, 1])
def test_sign_at_the_special_values(zero: int) -> None:
    """Breaks when zero, -0.0, NaN, infinities or denormals, in X or the threshold, change side; or a zero becomes -0.0."""
    x, threshold = (array.copy() for array in np.broadcast_arrays(SPECIALS[:, None], SPECIALS[None, :]))

    def sign(a: float, b: float) -> float:
        if a != a or b != b:
            return 0.0 if zero == 0 else -1.0
        return float(zero) if a == b else (1.0 if a > b else -1.0)

    expected = [
        [sign(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(x.tolist(), threshold.tolist(), strict=True)
    ]
    for result in (
        run_reference("Sign", [x, threshold], {"zero": zero}),
        run_function("Sign", [x, threshold], {"zero": zero}, constant_inputs=False),
    ):
        assert result.dtype == np.float32 and result.tolist() == expected
        assert not np.signbit(result[result == 0]).any()


def test_sign_without_the_attribute_sends_zero_to_minus_one() -> None:
    """Breaks when the attribute's default is lost in the function or in the checks of a node."""
    arrays = [np.array([0.0, -0.0, 1.0], np.float32), np.zeros((), np.float32)]
    assert run_function("Sign", arrays, {}).tolist() == [-1, -1, 1]
    assert run_reference("Sign", arrays, {}).tolist() == [-1, -1, 1]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_sign_broadcasts_a_computed_threshold(batch: int, channels: int, per_image: bool, seed: int) -> None:
    """Breaks when a threshold per channel, or per image and channel (BCDNet-B), meets the wrong element."""
    random = np.random.default_rng(seed)
    # Few distinct values, so that X often equals the threshold.
    x = random.integers(-2, 3, size=(batch, channels, 3, 4)).astype(np.float32)
    shape = (batch if per_image else 1, channels, 1, 1)
    threshold = random.integers(-2, 3, size=shape).astype(np.float32)
    expected = np.where(x > threshold, 1, -1)
    assert np.array_equal(run_reference("Sign", [x, threshold], {}), expected)
    assert np.array_equal(run_function("Sign", [x, threshold], {}, constant_inputs=False), expected)


def test_ternary_at_the_special_values() -> None:
    """Breaks when +-0.5, NaN or an infinity gets another value, or a zero becomes -0.0."""
    above = np.nextafter(np.float32(0.5), np.float32(1))
    x = np.concatenate([SPECIALS, [above, -above]]).astype(np.float32)
    expected = [0, 0, 0, 1, -1, 0, 0, 1, -1, 0, 0, 1, -1]
    for result in (run_reference("Ternary", [x], {}), run_function("Ternary", [x], {})):
        assert result.tolist() == expected
        assert not np.signbit(result[result == 0]).any()


def test_onnx_infers_the_shapes() -> None:
    """Breaks when onnx.shape_inference cannot see through a function body, on which importers and inspect rely."""
    cases = {
        "Sign": ([np.zeros((2, 5, 6, 7), np.float32), np.zeros((5, 1, 1), np.float32)], {}),
        "Ternary": ([np.zeros((2, 5), np.float32)], {}),
        "BinaryLinear": ([np.zeros((2, 3, 10), np.float32), np.zeros((4, 2), np.uint8)], {"in_features": 10}),
    }
    geometry = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "group": 1, "in_channels": 5}
    image, weights = np.zeros((2, 5, 6, 7), np.float32), np.zeros((4, 4), np.uint8)
    cases["BinaryConv"] = ([image, weights], geometry)
    cases["TapScaledBinaryConv"] = ([image, weights, np.zeros((4, 6), np.float32)], geometry)
    assert cases.keys() == OPERATORS.keys()
    for name, (arrays, attributes) in cases.items():
        model = node_model(name, arrays, attributes)
        expected = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
        model.graph.output[0].type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True, strict_mode=True).graph.output[0]
        assert [dim.dim_value for dim in inferred.type.tensor_type.shape.dim] == expected, name


def test_function_bodies_use_standard_operators_only() -> None:
    """Breaks when a function would need a plug-in, or calls another function."""
    assert [function.name for function in functions()] == list(OPERATORS)
    for function in functions():
        assert {node.domain for node in function.node} == {""}
        assert [opset.domain for opset in function.opset_import] == [""]


GEOMETRY = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0], "group": 1, "in_channels": 8}


@pytest.mark.parametrize(
    ("name", "shapes", "attributes", "message"),
    [
        ("Sign", [(2, 3), (4,)], {"zero": -1}, "does not broadcast"),
        ("Sign", [(3,), (2, 3)], {"zero": -1}, "does not broadcast"),
        ("Sign", [(3,), ()], {"zero": 2}, "must be -1, 0 or \\+1"),
        ("BinaryConv", [(8, 4, 4), (2, 1)], GEOMETRY, "must be \\(N, C, H, W\\)"),
        ("BinaryConv", [(1, 7, 4, 4), (2, 1)], GEOMETRY, "in_channels is 8"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 2)], GEOMETRY, "expected 1 for 8 weights"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 1)], {**GEOMETRY, "group": 3}, "must divide"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 1)], {**GEOMETRY, "group": 0}, "must divide"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 1)], {**GEOMETRY, "strides": [0, 1]}, "strides must be >= 1"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 1)], {**GEOMETRY, "pads": [0, 0, -1, 0]}, "pads must be >= 0"),
        ("BinaryConv", [(1, 8, 4, 4), (2, 5)], {**GEOMETRY, "kernel_shape": [5, 1]}, "larger than the padded"),
        ("BinaryConv", [(1, 2**24, 1, 1), (1, 2**21)], {**GEOMETRY, "in_channels": 2**24}, "not exact"),
        ("TapScaledBinaryConv", [(1, 8, 4, 4), (2, 1), (2, 2)], GEOMETRY, "scale must have shape \\(2, 1\\)"),
        ("BinaryLinear", [(3, 9), (2, 1)], {"in_features": 8}, "in_features is 8"),
        ("BinaryLinear", [(3, 8), (2, 2)], {"in_features": 8}, "expected 1 for 8"),
        ("BinaryLinear", [(3, 0), (2, 0)], {"in_features": 0}, "between 1 and"),
    ],
)
def test_disagreeing_shapes_are_named(name: str, shapes: list, attributes: dict[str, Any], message: str) -> None:
    """Breaks when operands that do not fit together pass the shape rule, or get a message without the reason."""
    with pytest.raises(ModelFileError, match=message):
        OPERATORS[name].infer_shape(shapes, attributes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": None}, "lacks the attribute 'group'"),
        ({"dilations": [2, 2]}, "unknown attribute 'dilations'"),
        ({"pads": [0, 0]}, "'pads' must be a list of 4 integers"),
        ({"group": [1]}, "'group' must be one integer"),
        ({"kernel_shape": "3x3"}, "'kernel_shape' must be a list of 2 integers"),
        ({"in_channels": 8.0}, "'in_channels' must be one integer"),
    ],
)
def test_bad_attributes_are_named(changes: dict[str, Any], message: str) -> None:
    """Breaks when a node with missing, unknown or mistyped attributes is accepted or reported without its name."""
    attributes = {key: value for key, value in {**GEOMETRY, **changes}.items() if value is not None}
    node = onnx.helper.make_node("BinaryConv", ["X", "W"], ["Y"], name="stage.1.conv", **attributes)
    with pytest.raises(ModelFileError, match=f"'stage.1.conv'.*{message}"):
        OPERATORS["BinaryConv"].attributes_of(node)


@pytest.mark.parametrize("value", [0.5, np.nan, 2.0])
def test_references_refuse_real_inputs(value: float) -> None:
    """Breaks when a real-valued tensor reaches a binary layer of the reference unnoticed."""
    weights = pack_bits(np.ones((1, 8)))
    with pytest.raises(ModelFileError, match="only -1, 0 and \\+1"):
        run_reference("BinaryConv", [np.full((1, 8, 1, 1), value, np.float32), weights], GEOMETRY)
    with pytest.raises(ModelFileError, match="only -1, 0 and \\+1"):
        run_reference("BinaryLinear", [np.full((1, 8), value, np.float32), weights], {"in_features": 8})
