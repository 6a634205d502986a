"""fold_padding: zeros into the convolution, signs before the sign; exact under onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.layers.fold_padding import fold_padding
from bnn_deploy.passes.onnx.layers.hoist_pooling import hoist_pooling
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import (
    ZERO,
    apply,
    attributes,
    network,
    numbers,
    run,
    sign_node,
    signs,
    types,
)
from tests.passes.onnx_models import node

SHAPE = (1, 4, 5, 6)
PADS = np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64)
HALF = {"half": np.array(0.5, "float32")}
ZERO_ONE = [sign_node(), node("Mul", "s half", "m"), node("Add", "m half", "u")]


def padded(
    activation: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    value: float | None = None,
    pads: np.ndarray = PADS,
    channels: int = 4,
    pad: dict | None = None,
    **conv: object,
) -> onnx.ModelProto:
    """x, an activation, Pad 'pad' and a binary Conv 'layer'."""
    constants = ZERO | {"w": signs((3, channels, 3, 3)), "pads": pads} | (constants or {})
    inputs = f"{activation[-1].output[0]} pads"
    if value is not None:
        constants["value"] = np.array(value, "float32")
        inputs += " value"
    nodes = [*activation, node("Pad", inputs, "p", "pad", **(pad or {})), node("Conv", "p w", "y", "layer", **conv)]
    return network(nodes, SHAPE, constants)


def check(model: onnx.ModelProto, expected: list[str] | None) -> onnx.ModelProto:
    """The layer is binary afterwards, the result the same to the bit."""
    after, reports = apply(model, hoist_pooling, fold_padding, recognise_layers)
    assert [report.binary for report in reports] == [True] * len(reports)
    if expected is not None:
        assert types(after) == expected
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    return after


@settings(max_examples=30, deadline=None)
@given(
    amounts=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    own=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    explicit=st.booleans(),
    three=st.booleans(),
)
def test_zeros_go_into_the_convolution(
    amounts: list[int], own: list[int], strides: tuple[int, int], explicit: bool, three: bool
) -> None:
    """Breaks if sides are exchanged, or the convolution's own padding is lost."""
    pads = np.array([0, 0, *amounts[:2], 0, 0, *amounts[2:]], np.int64)
    activation = [node("Ternary", "x", "s") if three else sign_node()]
    model = padded(activation, None, 0.0 if explicit else None, pads, strides=list(strides))
    model.graph.node[-1].attribute.append(onnx.helper.make_attribute("pads", own))
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        onnx.helper.make_tensor_type_proto(1, [None] * 4).tensor_type.shape
    )
    after = check(model, ["Ternary" if three else "Sign", "BinaryConv"])
    assert attributes(after, "BinaryConv")["pads"] == [a + b for a, b in zip(amounts, own, strict=True)]


def test_axes_input_and_automatic_padding() -> None:
    """Breaks if Pad's axes (from opset 18) are taken for all axes, or SAME padding is computed of the unpadded image."""
    nodes = [
        sign_node(),
        node("Pad", "s pads none axes", "p", "pad"),
        node("Conv", "p w", "y", "layer", auto_pad="SAME_LOWER", strides=[2, 2]),
    ]
    nodes[1].input[2] = ""
    constants = {"w": signs((3, 4, 3, 2)), "pads": np.array([1, 2], np.int64), "axes": np.array([-1], np.int64)}
    after = check(network(nodes, SHAPE, ZERO | constants), ["Sign", "BinaryConv"])
    # 6 + 1 + 2 columns, every second: 5, the last begins at 8 and needs one more; lower puts it first.
    assert attributes(after, "BinaryConv")["pads"] == [1, 1 + 1, 1, 2]


def test_one_dimension() -> None:
    """Breaks if the axes of a one-dimensional convolution are counted as those of an image."""
    nodes = [sign_node(), node("Pad", "s pads", "p"), node("Conv", "p w", "y", "layer")]
    constants = ZERO | {"w": signs((3, 4, 3)), "pads": np.array([0, 0, 2, 0, 0, 1], np.int64)}
    model = network(nodes, (2, 4, 7), constants)
    after, reports = apply(model, fold_padding, recognise_layers)
    assert reports[0].binary and attributes(after, "BinaryConv")["pads"] == [0, 2, 0, 1]
    x = numbers((2, 4, 7))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_a_vector() -> None:
    """Breaks if the only axis of a vector is not padded before its sign, so that the product stays real."""
    nodes = [sign_node(), node("Pad", "s pads one", "p", "pad"), node("MatMul", "p w", "y", "layer")]
    constants = {"w": signs((7, 3)), "pads": np.array([1, 2], np.int64), "one": np.ones((), "float32")}
    model = network(nodes, (4,), ZERO | constants)
    after, reports = apply(model, fold_padding, recognise_layers)
    assert reports[0].binary and types(after)[:2] == ["Pad", "Sign"]
    x = numbers((4,))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


@pytest.mark.parametrize("filling", [-1.0, 1.0])
@pytest.mark.parametrize("zero", [-1, 0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.625, -3.0, "channels"])
def test_padding_with_signs_goes_before_the_sign(filling: float, zero: int, threshold: float | str) -> None:
    """Breaks if what is padded in before the sign lies on the wrong side of the threshold."""
    number = numbers((4, 1, 1), 2) if threshold == "channels" else np.array(threshold, "float32")
    model = padded([sign_node(threshold="t", zero=zero)], {"t": number}, filling)
    after = check(model, ["Pad", "Sign", "BinaryConv"])
    assert [n.name for n in after.graph.node] == ["pad", "s", "layer"]
    assert attributes(after, "BinaryConv")["pads"] == [0, 0, 0, 0]


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("three", [False, True])
def test_repeated_elements_go_before_the_sign(mode: str, three: bool) -> None:
    """Breaks if padding that repeats elements of the image makes a layer real-valued."""
    activation = [node("Ternary", "x", "s") if three else sign_node()]
    check(padded(activation, pad={"mode": mode}), ["Pad", "Ternary" if three else "Sign", "BinaryConv"])


def test_a_large_threshold() -> None:
    """Breaks if threshold + 1 is the threshold itself, beyond 2**24."""
    model = padded([sign_node(threshold="t")], {"t": np.array(2.0**25, "float32")}, 1.0)
    after = check(model, None)
    assert types(after).count("Sign") == 2


@pytest.mark.parametrize("filling", [0.0, 1.0])
def test_zero_and_one(filling: float) -> None:
    """Breaks if 0, which is one of the two values, is taken for the zero padding of a binary convolution."""
    check(padded(ZERO_ONE, HALF, filling), ["Pad", "Sign", "BinaryConv", "Mul", "Add"])


@pytest.mark.parametrize("offset", ["half", "minus"])
@pytest.mark.parametrize("attribute", [{"pads": [1, 0, 2, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_a_convolution_that_pads_zero_and_one(offset: str, attribute: dict) -> None:
    """Breaks if binary convolutions of {0, 1} or {-1, 0} activations with padding stay real-valued, or pad with the other."""
    nodes = [
        sign_node(),
        node("Mul", "s half", "m"),
        node("Add", f"m {offset}", "u"),
        node("Conv", "u w", "y", "layer", **attribute),
    ]
    constants = ZERO | HALF | {"minus": np.array(-0.5, "float32"), "w": signs((3, 4, 3, 3))}
    after = check(network(nodes, SHAPE, constants), ["Pad", "Sign", "BinaryConv", "Mul", "Add"])
    assert attributes(after, "BinaryConv")["pads"] == [0, 0, 0, 0]


def test_real_convolutions_go_on_padding_by_themselves() -> None:
    """Breaks if a real-valued layer gets a Pad that does it no good."""
    real = np.random.default_rng(0).normal(size=(3, 4, 3, 3)).astype("float32")
    nodes = [*ZERO_ONE, node("Conv", "u w", "y", "layer", pads=[1, 1, 1, 1])]
    model = network(nodes, SHAPE, ZERO | HALF | {"w": real})
    after, _ = apply(model, fold_padding)
    assert types(after) == types(model)


@pytest.mark.parametrize(("three", "filling"), [(False, -1.5), (False, 1.5), (False, 0.0), (True, 1.5), (True, 0.0)])
def test_signs_that_were_moved_are_binarised_again(three: bool, filling: float) -> None:
    """Breaks if a Concat before the padding, with channels padded too, makes a layer real-valued."""
    first = node("Ternary", "x", "s") if three else sign_node()
    activation = [first, node("Mul", "s factor", "m"), node("Concat", "m m", "u", axis=1)]
    pads = np.array([0, 1, 1, 2, 0, 0, 2, 1], np.int64)
    constants = {"factor": np.array(1.5, "float32")}
    model = padded(activation, constants, filling, pads, channels=9)
    after, reports = apply(model, fold_padding, recognise_layers)
    assert reports[0].binary
    x = numbers(SHAPE)
    # Multiples of 1.5, at most 81 of them: exact.
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_every_reader_gets_what_it_read() -> None:
    """Breaks if one Pad that a convolution, a second one and a sum read is changed for one of them only."""
    nodes = [
        sign_node(),
        node("Pad", "s pads", "p", "pad"),
        node("Conv", "p w", "a", "first"),
        node("Conv", "p w", "b", "second", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("ReduceSum", "p", "total", keepdims=0),
        node("ReduceMax", "b", "largest", keepdims=0),
        node("Sum", "a total largest", "y"),
    ]
    model = network(nodes, SHAPE, ZERO | {"w": signs((3, 4, 3, 3)), "pads": PADS})
    after = check(model, None)
    assert types(after).count("BinaryConv") == 2 and types(after).count("Pad") == 1


def test_padding_before_pooling() -> None:
    """Breaks if a Pad between sign and pool is in the way of both rules."""
    nodes = [
        sign_node(),
        node("Pad", "s pads value", "p", "pad"),
        node("MaxPool", "p", "q", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "q w", "y", "layer"),
    ]
    constants = ZERO | {"w": signs((3, 4, 2, 2)), "pads": PADS, "value": np.array(-1, "float32")}
    model = network(nodes, SHAPE, constants)
    after, reports = apply(model, hoist_pooling, fold_padding, hoist_pooling, recognise_layers)
    assert reports[0].binary and types(after) == ["Pad", "MaxPool", "Sign", "BinaryConv"]
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("another number", padded([sign_node()], value=0.5)),
        ("cropping", padded([sign_node()], pads=np.array([0, 0, -1, 0, 0, 0, 0, 0], np.int64))),
        ("real values", padded([node("Relu", "x", "s")])),
        ("a third of three values", padded([node("Ternary", "x", "s")], value=0.25)),
    ],
)
def test_everything_else_is_left_alone(name: str, model: onnx.ModelProto) -> None:
    """Breaks if padding that brings in other values is called binary."""
    after, reports = apply(model, fold_padding, recognise_layers)
    assert types(after) == types(model)
    expected = "real values from Relu" if name == "real values" else "that went through Pad 'pad'"
    assert expected in reports[0].reasons[0]
