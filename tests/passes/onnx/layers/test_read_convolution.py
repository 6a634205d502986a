"""Every way to write a convolution of signs, before and after ``recognise_layers`` under onnxruntime."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.import_report import LayerReport
from bnn_deploy.passes.onnx.layers import recognise_layers as module
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import (
    HALF,
    ZERO,
    ZERO_ONE,
    apply,
    convolution,
    network,
    numbers,
    only,
    run,
    sign_node,
    signs,
    tolerance,
    types,
)
from tests.passes.onnx_models import node


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    group=st.integers(1, 3),
    depth=st.integers(1, 9),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_convolutions_of_integers_are_exact(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: list[int],
    group: int,
    depth: int,
    outputs: int,
    seed: int,
) -> None:
    """Breaks if taps, channels or groups are packed in another order, or padding or strides turned round."""
    weights = signs((group * outputs, depth, *kernel), seed)
    shape = (2, group * depth, 5, 6)
    model = convolution(weights, shape, group=group, strides=list(strides), pads=pads, kernel_shape=list(kernel))
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryConv"]
    x = numbers(shape, seed + 1)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    assert only(reports) == LayerReport("layer", "Conv", True, "signs", "±a per output channel")


@settings(max_examples=20, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    group=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_one_dimensional_convolutions(kernel: int, stride: int, pads: tuple[int, int], group: int, seed: int) -> None:
    """Breaks if a one-dimensional convolution becomes a column instead of a row, or loses its scale."""
    scale = np.array([0.5, 0.25, 2, 1], "float32").reshape(4, 1, 1)
    shape = (2, 3 * group, 7)
    bias = np.array([1, 0, -0.5, 3], "float32")
    weights = signs((4, 3, kernel), seed) * scale
    model = convolution(weights, shape, bias=bias, group=group, strides=[stride], pads=list(pads))
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "Unsqueeze", "BinaryConv", "Mul", "Add", "Squeeze"]
    x = numbers(shape, seed)
    # Powers of two and small integers: exact in any order.
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    assert only(reports).binary


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(("size", "kernel", "strides"), [((5, 6), (2, 3), (1, 1)), ((7, 4), (3, 2), (2, 3))])
def test_automatic_padding(auto_pad: str, size: tuple, kernel: tuple, strides: tuple) -> None:
    """Breaks if the odd element of SAME padding goes to the wrong side."""
    shape = (1, 4, *size)
    model = convolution(signs((5, 4, *kernel)), shape, auto_pad=auto_pad, strides=list(strides))
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary
    x = numbers(shape)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_scale_and_bias_as_our_own_export_writes_them() -> None:
    """Breaks if a foreign convolution compiles to something slower than ours, or scales are rounded twice."""
    scale = np.array([0.03, 0.07, 1.1], "float32").reshape(3, 1, 1, 1)
    weights, bias = signs((3, 8, 3, 3)) * scale, np.array([0.1, -0.2, 0.3], "float32")
    model = convolution(weights, (2, 8, 6, 6), bias=bias, pads=[1, 1, 1, 1])
    model.graph.node[-1].metadata_props.add(key="scope", value="features.3")
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryConv", "Mul", "Add"]
    layer = after.graph.node[1]
    assert layer.name == "layer" and layer.input[1] == "layer.packed"
    assert [(entry.key, entry.value) for entry in layer.metadata_props] == [("scope", "features.3")]
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    np.testing.assert_array_equal(constants["layer/scale"], scale.reshape(1, 3, 1, 1))
    np.testing.assert_array_equal(constants["layer/bias"], bias.reshape(1, 3, 1, 1))
    x = numbers((2, 8, 6, 6))
    difference = np.abs(run(after, x=x) - run(model, x=x)).max()
    assert difference <= tolerance(73, 1.1)
    assert only(reports).deviation == 0.0


def test_scale_of_every_kernel_position() -> None:
    """Breaks if the scale of one tap is applied to another, or misses the activation's."""
    scale = (2.0 ** np.random.default_rng(0).integers(-2, 3, (6, 1, 3, 2))).astype("float32")
    activation = [sign_node(), node("Mul", "s a", "u")]
    model = convolution(signs((6, 4, 3, 2)) * scale, (2, 8, 5, 5), activation, {"a": np.array(0.5, "float32")}, group=2)
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "TapScaledBinaryConv"]
    x = numbers((2, 8, 5, 5))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    assert only(reports).weights == "±a per output channel and kernel position"


def test_offset_and_a_scale_of_every_kernel_position() -> None:
    """Breaks if what {0, 1} activations add is computed with the scale of one tap for all."""
    scale = (2.0 ** np.random.default_rng(0).integers(-2, 3, (6, 1, 3, 2))).astype("float32")
    model = convolution(signs((6, 8, 3, 2)) * scale, (2, 8, 5, 5), ZERO_ONE, HALF)
    after, _ = apply(model, recognise_layers)
    assert types(after) == ["Sign", "TapScaledBinaryConv", "Add"]
    x = numbers((2, 8, 5, 5))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


@pytest.mark.parametrize("three", ["Ternary", "Sign"])
def test_three_valued_activations(three: str) -> None:
    """Breaks if zeros of the activation are lost, or the report calls them signs."""
    first = node("Ternary", "x", "s") if three == "Ternary" else sign_node(zero=0)
    model = convolution(signs((4, 5, 3, 3)), (1, 5, 6, 6), [first], pads=[1, 0, 1, 0])
    after, reports = apply(model, recognise_layers)
    assert types(after) == [three, "BinaryConv"]
    assert only(reports).activations == "three values (-1, 0, +1)"
    x = numbers((1, 5, 6, 6))
    assert (run(network([first], (1, 5, 6, 6), ZERO, output="s"), x=x) == 0).any()
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_pruned_channels() -> None:
    """Breaks if a channel of zero weights computes anything but its bias."""
    weights = signs((3, 4, 2, 2))
    weights[1] = 0
    model = convolution(weights, (1, 4, 4, 4), bias=np.array([1, 2, 3], "float32"))
    after, _ = apply(model, recognise_layers)
    x = numbers((1, 4, 4, 4))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    assert (run(after, x=x)[:, 1] == 2).all()


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(4)) if order != (0, 1, 2, 3)])
def test_a_swapped_order_would_be_noticed(order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the tests above would pass with rows, columns, channels or outputs exchanged."""
    read = module.read_convolution

    def mistaken(conv_node: object) -> object:
        form = read(conv_node)
        form.weights = form.weights.reshape(3, 3, 3, 3).transpose(order).reshape(3, 9, 3)
        return form

    model = convolution(signs((3, 3, 3, 3), 5), (1, 3, 5, 5))
    monkeypatch.setitem(module._READERS, "Conv", mistaken)
    after, _ = apply(model, recognise_layers)
    x = numbers((1, 3, 5, 5))
    assert not np.array_equal(run(after, x=x), run(model, x=x))


def test_swapped_groups_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the tests above would pass with the output channels of two groups exchanged."""
    read = module.read_convolution

    def mistaken(conv_node: object) -> object:
        form = read(conv_node)
        form.weights = form.weights[[2, 3, 0, 1]]
        return form

    model = convolution(signs((4, 3, 3, 3), 5), (1, 6, 5, 5), group=2)
    monkeypatch.setitem(module._READERS, "Conv", mistaken)
    after, _ = apply(model, recognise_layers)
    x = numbers((1, 6, 5, 5))
    assert not np.array_equal(run(after, x=x), run(model, x=x))
