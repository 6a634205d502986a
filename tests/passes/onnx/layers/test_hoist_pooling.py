"""hoist_pooling: exact under onnxruntime, only data movement left before the layer, and everything doubtful left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.layers.hoist_pooling import hoist_pooling
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import ZERO, apply, network, numbers, run, sign_node, signs, types
from tests.passes.onnx_models import node

SHAPE = (2, 4, 7, 8)


def pooled(
    activation: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None, channels: int = 4, **pool: object
) -> onnx.ModelProto:
    """x, an activation, MaxPool 'pool' and a binary Conv 'layer'."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]} | pool
    nodes = [
        *activation,
        node("MaxPool", activation[-1].output[0], "p", "pool", **pool),
        node("Conv", "p w", "y", "layer"),
    ]
    return network(nodes, SHAPE, ZERO | {"w": signs((3, channels, 2, 2))} | (constants or {}))


def check(model: onnx.ModelProto, expected: list[str]) -> onnx.ModelProto:
    """The layer is binary afterwards, the result the same to the bit."""
    after, reports = apply(model, hoist_pooling, recognise_layers)
    assert types(after) == expected
    assert [report.binary for report in reports] == [True]
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
    return after


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    zero=st.sampled_from([-1, 0, 1]),
    per_channel=st.booleans(),
)
def test_pooling_of_signs_is_exact(
    kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, ...], zero: int, per_channel: bool
) -> None:
    """Breaks if a window, the padding or the threshold is another one before the sign than behind it."""
    pads = tuple(min(pad, extent - 1) for pad, extent in zip(pads, kernel * 2, strict=True))
    threshold = numbers((4, 1, 1), 3) if per_channel else np.array([0.125], "float32")
    model = pooled(
        [sign_node(threshold="t", zero=zero)],
        {"t": threshold},
        kernel_shape=list(kernel),
        strides=list(strides),
        pads=list(pads),
    )
    after = check(model, ["MaxPool", "Sign", "BinaryConv"])
    assert [n.name for n in after.graph.node] == ["pool", "s", "layer"]


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("ceil", {"ceil_mode": 1, "kernel_shape": [3, 3]}),
        ("ceil, side by side", {"ceil_mode": 1}),
        ("same", {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 2], "strides": [1, 1]}),
        ("dilated", {"dilations": [2, 1]}),
    ],
)
def test_other_windows(name: str, pool: dict) -> None:
    """Breaks if attributes of the pool are lost on the way."""
    check(pooled([sign_node()], **pool), ["MaxPool", "Sign", "BinaryConv"])


def test_scale_and_offset_go_along() -> None:
    """Breaks if arithmetic between sign and pool is dropped, or done twice for its other readers."""
    activation = [sign_node(), node("Mul", "half s", "m"), node("Add", "m half", "u")]
    model = pooled(activation, {"half": np.array(0.5, "float32")})
    # 2 x 2 x 4 products: halves of small integers, exact. The Mul and Add behind the layer are its scale and offset.
    check(model, ["MaxPool", "Sign", "BinaryConv", "Mul", "Add"])


def test_three_valued() -> None:
    """Breaks if Ternary, which never falls either, is not moved."""
    check(pooled([node("Ternary", "x", "s")]), ["MaxPool", "Ternary", "BinaryConv"])


def test_pools_one_after_the_other() -> None:
    """Breaks if the second pool does not see the sign that the first one was moved before."""
    pools = [sign_node(), node("MaxPool", "s", "q", "first", kernel_shape=[2, 1])]
    check(pooled(pools), ["MaxPool", "MaxPool", "Sign", "BinaryConv"])


@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("factor", [-0.75, 3.0])
def test_signs_that_were_moved_are_binarised_again(three: bool, factor: float) -> None:
    """Breaks if a Concat or a negative factor before the pool makes a layer real-valued, or gives other values."""
    activation = [
        node("Ternary", "x", "s") if three else sign_node(),
        node("Mul", "s factor", "m"),
        node("Concat", "m m", "u", axis=1),
    ]
    model = pooled(activation, {"factor": np.array(factor, "float32")}, channels=8)
    after, reports = apply(model, hoist_pooling, recognise_layers)
    assert reports[0].binary
    kind = "Ternary" if three else "Sign"
    assert types(after).count(kind) == 2 and types(after).index("BinaryConv") > types(after).index("MaxPool")
    x = numbers(SHAPE)
    # Multiples of 0.75 or 3 up to 8 * 4 of them: exact.
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_negative_factor_without_data_movement() -> None:
    """Breaks if MaxPool(-sign(x)) is taken for -sign(MaxPool(x))."""
    model = pooled([sign_node(), node("Neg", "s", "u")])
    after, reports = apply(model, hoist_pooling, recognise_layers)
    assert reports[0].binary
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_threshold_of_every_pixel_stays() -> None:
    """Breaks if a threshold that differs within a window is applied to the pooled image."""
    model = pooled([sign_node(threshold="t")], {"t": numbers((1, 1, 7, 8), 5)})
    after, reports = apply(model, hoist_pooling, recognise_layers)
    assert reports[0].binary and types(after).count("Sign") == 2
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_other_readers_keep_their_signs() -> None:
    """Breaks if a shortcut that reads the signs, or the unpooled values, gets something else."""
    model = pooled([sign_node()])
    model.graph.node.extend([node("ReduceSum", "s", "total", keepdims=0), node("Add", "y total", "z")])
    model.graph.output[0].name = "z"
    after, reports = apply(model, hoist_pooling, recognise_layers)
    assert reports[0].binary
    x = numbers(SHAPE)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def indices() -> onnx.ModelProto:
    nodes = [
        sign_node(),
        node("MaxPool", "s", "p i", "pool", kernel_shape=[2, 2]),
        node("Cast", "i", "f", to=1),
        node("Conv", "p w", "c", "layer"),
        node("ReduceMax", "f", "m", keepdims=0),
        node("Add", "c m", "y"),
    ]
    return network(nodes, SHAPE, ZERO | {"w": signs((3, 4, 1, 1))})


@pytest.mark.parametrize(
    "build",
    [
        indices,
        lambda: pooled([sign_node()], kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1),
        lambda: pooled([sign_node()], kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
        lambda: pooled([node("Relu", "x", "s")]),
        lambda: network(
            [sign_node(), node("MaxPool", "s", "p", kernel_shape=[2, 2]), node("Relu", "p", "y")], SHAPE, ZERO
        ),
    ],
    ids=["indices are read", "windows behind the image", "dilated padding", "real values", "no layer behind"],
)
def test_everything_else_is_left_alone(build: Callable[[], onnx.ModelProto]) -> None:
    """Breaks if a pool is moved where that is not known to be exact, or does no good."""
    model = build()
    after, _ = apply(model, hoist_pooling)
    assert types(after) == types(model)
