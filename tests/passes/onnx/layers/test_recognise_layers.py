"""recognise_layers: every way to write a layer, before and after under onnxruntime; every reason to leave one alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.import_report import ImportOptions, LayerReport
from bnn_deploy.passes.onnx.layers import recognise_layers as module
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import ZERO, apply, network, numbers, run, sign_node, signs, types
from tests.passes.onnx_models import node


def tolerance(terms: int, largest: float) -> float:
    """How far two float32 sums of ``terms`` products of at most ``largest`` may differ.

    Either is off by at most (terms + 1) * 2**-24 of the sum of magnitudes: one rounding for each addition and each product. The
    other way round, scale * integer + bias, rounds scale, product and sum: 3 * 2**-24 of the same. Together below twice the
    first for two terms or more.
    """
    return 2 * (terms + 4) * 2.0**-24 * terms * largest


def only(reports: list[LayerReport]) -> LayerReport:
    assert len(reports) == 1
    return reports[0]


HALF = {"half": np.array(0.5, "float32")}
ZERO_ONE = [sign_node(), node("Mul", "s half", "m"), node("Add", "m half", "u")]


# --- convolutions ---------------------------------------------------------------------------------------------------


def convolution(
    weights: np.ndarray,
    shape: tuple[int, ...],
    activation: list[onnx.NodeProto] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    bias: np.ndarray | None = None,
    **attribute: object,
) -> onnx.ModelProto:
    """x, signs (or what ``activation`` makes), Conv 'layer'."""
    nodes = [*(activation or [sign_node()])]
    last = nodes[-1].output[0]
    values = ZERO | {"layer.weight": weights} | (constants or {}) | ({} if bias is None else {"b": bias})
    inputs = f"{last} layer.weight" + " b" * (bias is not None)
    return network([*nodes, node("Conv", inputs, "y", "layer", **attribute)], shape, values)


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


# --- matrix products ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    on_the_left=st.booleans(),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, 2.0, 0.0]),
    addend=st.sampled_from(["none", "scalar", "outputs", "rows", "matrix", "computed"]),
    columns=st.sampled_from([3, 5]),
    zero_one=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(True, False, False, 0.5, 2.0, "outputs", 3, True, 0)  # as many rows as columns: which of them are outputs?
def test_every_gemm(
    on_the_left: bool,
    trans_a: bool,
    trans_b: bool,
    alpha: float,
    beta: float,
    addend: str,
    columns: int,
    zero_one: bool,
    seed: int,
) -> None:
    """Breaks if a transposition, alpha, beta or the addend of a Gemm is read wrongly."""
    rows, terms = 3, 19
    left, right = ((terms, rows) if trans_a else (rows, terms)), ((columns, terms) if trans_b else (terms, columns))
    weights, shape = signs(left if on_the_left else right, seed) * np.float32(0.5), right if on_the_left else left
    shapes = {"scalar": (), "outputs": (columns,), "rows": (rows, 1), "matrix": (rows, columns)}
    constants = ZERO | HALF | {"w": weights}
    if addend in shapes:
        constants["c"] = numbers(shapes[addend], seed)
    activation = ZERO_ONE if zero_one else [sign_node(output="u")]
    inputs = ("w u" if on_the_left else "u w") + (" c" if addend != "none" else "")
    flags = {"transA": int(trans_a), "transB": int(trans_b), "alpha": alpha, "beta": beta}
    extra = {"c": (rows, columns)} if addend == "computed" else {}
    model = network([*activation, node("Gemm", inputs, "y", "layer", **flags)], shape, constants, extra_inputs=extra)
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary and "BinaryLinear" in types(after)
    x = {"x": numbers(shape, seed)} | ({"c": numbers((rows, columns), seed)} if extra else {})
    # Multiples of 1/16 of a few units: exact in any order.
    np.testing.assert_array_equal(run(after, **x), run(model, **x))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 4)])
def test_matrix_on_the_right(leading: tuple[int, ...]) -> None:
    """Breaks if MatMul(x, w) loses leading axes or takes w for its transpose."""
    model = network(
        [sign_node(), node("MatMul", "s w", "y", "layer")],
        (*leading, 11),
        ZERO | {"w": signs((11, 11)) * np.float32(2) ** np.arange(11, dtype="float32")},
    )
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryLinear", "Mul"] and only(reports).binary
    x = numbers((*leading, 11))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_matrix_on_the_left(leading: tuple[int, ...]) -> None:
    """Breaks if MatMul(w, x), which has outputs as rows, is not turned round and back."""
    weights = signs((7, 11)) * np.float32(2) ** np.arange(7, dtype="float32")[:, None]
    shape = (*leading, 11, 11)
    model = network([sign_node(), node("MatMul", "w s", "y", "layer")], shape, ZERO | {"w": weights})
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "Transpose", "BinaryLinear", "Mul", "Transpose"] and only(reports).binary
    x = numbers(shape)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_matrix_on_the_left_of_a_vector() -> None:
    """Breaks if a vector, which has no second axis, is transposed."""
    model = network([sign_node(), node("MatMul", "w s", "y", "layer")], (11,), ZERO | {"w": signs((7, 11))})
    after, _ = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryLinear"]
    x = numbers((11,))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_stack_of_one_matrix() -> None:
    """Breaks if exporters' (1, K, O) weights are not seen to be one matrix."""
    model = network([sign_node(), node("MatMul", "s w", "y", "layer")], (2, 3, 8), ZERO | {"w": signs((1, 8, 4))})
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary
    x = numbers((2, 3, 8))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


# --- between the sign and the layer ---------------------------------------------------------------------------------


ROLL = {
    "b0": np.array([2], np.int64),
    "e0": np.array([2**31], np.int64),
    "b1": np.array([0], np.int64),
    "axis": np.array([2], np.int64),
}


def roll(source: str, output: str) -> list[onnx.NodeProto]:
    """Two slices and a Concat, as torch exports ``roll``."""
    return [
        node("Slice", f"{source} b0 e0 axis", f"{output}_bottom"),
        node("Slice", f"{source} b1 b0 axis", f"{output}_top"),
        node("Concat", f"{output}_bottom {output}_top", output, axis=2),
    ]


def test_scales_and_offsets_are_carried_through_data_movement() -> None:
    """Breaks if a {0, 1} activation that is rolled and transposed loses its half or its offset, or its other reader suffers."""
    activation = [
        sign_node(),
        node("Mul", "s half", "m"),
        node("Add", "half m", "u"),
        *roll("u", "r"),
        node("Transpose", "r", "t", perm=[0, 1, 3, 2]),
    ]
    model = convolution(signs((4, 6, 2, 3)), (1, 6, 5, 5), activation, HALF | ROLL, bias=np.ones(4, "float32"))
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary and only(reports).activations == "two values (0, +1)"
    x = numbers((1, 6, 5, 5))
    # Halves of small integers: exact.
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))

    both = convolution(signs((4, 6, 2, 3)), (1, 6, 5, 5), activation, HALF | ROLL)
    both.graph.node.append(node("ReduceSum", "t", "total", keepdims=0))
    both.graph.node.append(node("Add", "y total", "z"))
    both.graph.output[0].name = "z"
    after, _ = apply(both, recognise_layers)
    np.testing.assert_array_equal(run(after, x=x), run(both, x=x))


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["Mul", "Add", "Sub", "Div", "Neg", "rSub"]), st.sampled_from([0.5, -2.0, 3.0, 1.0])),
        max_size=4,
    ),
    three=st.booleans(),
)
def test_any_arithmetic_with_single_numbers(steps: list[tuple[str, float]], three: bool) -> None:
    """Breaks if a scale or offset is computed otherwise than the graph's own arithmetic does."""
    nodes, constants, last = [node("Ternary", "x", "s") if three else sign_node()], dict(ZERO), "s"
    for index, (operator, number) in enumerate(steps):
        # Thirds are rounded: then 0 may not stay exactly in the middle of three values, and the layer stays real-valued.
        number = 4.0 if three and number == 3.0 else number
        constants[f"c{index}"] = np.array(number, "float32")
        operands = {"Neg": last, "rSub": f"c{index} {last}"}.get(operator, f"{last} c{index}")
        nodes.append(node(operator.removeprefix("r"), operands, f"v{index}"))
        last = f"v{index}"
    constants["w"] = signs((8, 5)) * np.float32(0.25)
    model = network([*nodes, node("MatMul", f"{last} w", "y", "layer")], (3, 8), constants)
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary
    x = numbers((3, 8)) * 2
    a, b = run(after, x=x), run(model, x=x)
    # No step makes more than four times its input and 4 out of it: below 4 ** 4 + 4 * (1 + 4 + 16 + 64) after four of them.
    assert np.abs(a - b).max() <= tolerance(9, 600.0 * 0.25)


def test_layers_that_share_an_input_go_on_sharing_it() -> None:
    """Breaks if data movement is written anew for each of several layers, which costs time in every one."""
    nodes = [sign_node(), node("Mul", "s half", "u"), *roll("u", "r")]
    layers = [node("Conv", "r w", "y1", "first"), node("Conv", "r w", "y2", "second"), node("Add", "y1 y2", "y")]
    model = network([*nodes, *layers], (1, 4, 5, 5), ZERO | HALF | ROLL | {"w": signs((3, 4, 1, 1))})
    after, reports = apply(model, recognise_layers)
    assert types(after).count("Concat") == 1
    assert [report.name for report in reports] == ["first", "second"]
    x = numbers((1, 4, 5, 5))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


# --- zero weights ---------------------------------------------------------------------------------------------------


def with_zeros(layers: int = 1) -> onnx.ModelProto:
    nodes, constants, last = [], dict(ZERO), "x"
    for index in range(layers):
        weights = signs((6, 6), index) * np.float32(0.5)
        weights[2, [1, 4]] = 0
        constants[f"w{index}"] = weights
        nodes += [
            sign_node(last, f"s{index}"),
            node("Gemm", f"s{index} w{index}", f"y{index}", f"layer{index}", transB=1),
        ]
        last = f"y{index}"
    return network(nodes, (2, 6), constants, output=last)


def test_zero_weights_need_a_choice() -> None:
    """Breaks if weights of 0 are changed without the user's word, or the error names neither layers nor choices."""
    with pytest.raises(ModelFileError) as caught:
        apply(with_zeros(5), recognise_layers)
    message = str(caught.value)
    assert "'layer0' (2 of 36), 'layer1' (2 of 36), 'layer2' (2 of 36) and 2 more" in message
    assert "5 layers" in message and "--zero-weights -1" in message and "--zero-weights float" in message


def test_zero_weights_become_minus_a() -> None:
    """Breaks if --zero-weights -1 gives anything but -a."""
    model = with_zeros()
    after, reports = apply(model, recognise_layers, options=ImportOptions(zero_weights="-1"))
    report = only(reports)
    assert report.binary and report.zero_weights == 2
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    weights = onnx.numpy_helper.to_array(changed.graph.initializer[1]).copy()
    assert changed.graph.initializer[1].name == "w0"
    weights[weights == 0] = -0.5
    changed.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(weights, "w0"))
    x = numbers((2, 6))
    np.testing.assert_array_equal(run(after, x=x), run(changed, x=x))


def test_zero_weights_keep_a_layer_real() -> None:
    """Breaks if --zero-weights float changes results, or does not say why the layer stays real-valued."""
    model = with_zeros()
    after, reports = apply(model, recognise_layers, options=ImportOptions(zero_weights="float"))
    assert only(reports).reasons == ("2 of its 36 weights are exactly 0 (--zero-weights float)",)
    assert types(after) == ["Sign", "Gemm"]
    x = numbers((2, 6))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_zeros_of_real_layers_need_no_choice() -> None:
    """Breaks if a sparse layer that is not binary for another reason stops the import."""
    weights = signs((4, 4))
    weights[0, 0] = 0
    model = network([node("MatMul", "x w", "y", "layer")], (2, 4), {"w": weights})
    _, reports = apply(model, recognise_layers)
    assert len(only(reports).reasons) == 1


# --- reasons --------------------------------------------------------------------------------------------------------


def conv(weights: np.ndarray, shape: tuple = (1, 4, 5, 5), **attribute: object) -> Callable[[], onnx.ModelProto]:
    return lambda: convolution(weights, shape, **attribute)


def graph(nodes: list[onnx.NodeProto], shape: tuple, constants: dict, **inputs: tuple) -> Callable[[], onnx.ModelProto]:
    return lambda: network(nodes, shape, ZERO | constants, extra_inputs=inputs)


REAL = np.random.default_rng(0).normal(size=(3, 4, 3, 3)).astype("float32")
BIT = signs((3, 4, 3, 3))
MATMUL = node("MatMul", "s w", "y", "layer")

DECLINED: dict[str, tuple[Callable[[], onnx.ModelProto], list[str]]] = {
    "dilation": (conv(BIT, dilations=[2, 1]), ["its kernel is dilated by [2, 1]"]),
    "real weights": (
        conv(REAL),
        ["its weights are not binary: 36 different magnitudes per output channel, spread 99%"],
    ),
    "2-bit weights": (
        conv(np.tile(np.array([-1.5, -0.5, 0.5, 1.5], "float32"), 27).reshape(3, 4, 3, 3)),
        ["its weights are not binary: 4 different values per output channel (2 bits)"],
    ),
    "real input": (
        graph([node("Relu", "x", "r", "relu"), node("Conv", "r w", "y", "layer")], (1, 4, 5, 5), {"w": BIT}),
        ["its input is not binary: real values from Relu 'relu'"],
    ),
    "network input": (
        graph([node("Conv", "x w", "y", "layer")], (1, 4, 5, 5), {"w": BIT}),
        ["its input is not binary: the network input"],
    ),
    "both real": (
        graph([node("Conv", "x w", "y", "layer")], (1, 4, 5, 5), {"w": REAL}),
        [
            "its input is not binary: the network input",
            "its weights are not binary: 36 different magnitudes per output channel, spread 99%",
        ],
    ),
    "computed weights": (
        graph(
            [sign_node(), node("Abs", "w0", "w", "absolute"), node("Conv", "s w", "y", "layer")],
            (1, 4, 5, 5),
            {},
            w0=(3, 4, 3, 3),
        ),
        ["its weights are computed at run time from Abs 'absolute'"],
    ),
    "computed bias": (
        graph([sign_node(), node("Conv", "s w b", "y", "layer")], (1, 4, 5, 5), {"w": BIT}, b=(3,)),
        ["its bias is computed at run time from an input of the network"],
    ),
    "three dimensions": (
        conv(signs((2, 4, 2, 2, 2)), (1, 4, 3, 3, 3)),
        ["its kernel has 3 dimensions, and only one or two run on bits"],
    ),
    "unknown size": (
        conv(BIT, (1, 4, "height", 5), auto_pad="SAME_UPPER"),
        ["its padding (SAME_UPPER) depends on the size of the image, which is not fixed in the file"],
    ),
    "transposed": (
        graph(
            [sign_node(), node("ConvTranspose", "s w", "y", "layer")], (1, 4, 5, 5), {"w": np.moveaxis(BIT, 1, 0).copy()}
        ),
        ["transposed convolutions do not run on bits"],
    ),
    "zero among 0 and 1": (
        conv(
            BIT, activation=[sign_node(), node("Mul", "s half", "m"), node("Add", "m half", "u")], constants=HALF, pads=[1] * 4
        ),
        ["it pads two values (0, +1) with 0, which is not done on bits"],
    ),
    "a factor per channel": (
        conv(BIT, activation=[sign_node(), node("Mul", "s v", "u", "times")], constants={"v": numbers((4, 1, 1)) + 2}),
        ["its input is not binary: signs with a vector of numbers applied by Mul 'times'"],
    ),
    "a computed factor": (
        graph(
            [sign_node(), node("Mul", "s k", "u", "times"), node("Conv", "u w", "y", "layer")],
            (1, 4, 5, 5),
            {"w": BIT},
            k=(1, 1, 5, 5),
        ),
        ["its input is not binary: signs with computed values applied by Mul 'times'"],
    ),
    "zero times signs": (
        conv(BIT, activation=[sign_node(), node("Mul", "s zero", "u", "times")]),
        ["its input is not binary: signs to which Mul 'times' does more than scale and shift"],
    ),
    "lost in rounding": (
        conv(
            BIT,
            activation=[node("Ternary", "x", "s"), node("Add", "s large", "u", "plus")],
            constants={"large": np.array(2.0**24, "float32")},
        ),
        ["its input is not binary: three values (-1, 0, +1) to which Add 'plus' does more than scale and shift"],
    ),
    "average": (
        conv(BIT, activation=[sign_node(), node("AveragePool", "s", "u", "pool", kernel_shape=[2, 2])]),
        ["its input is not binary: sums or averages of signs from AveragePool 'pool'"],
    ),
    "pooled": (
        conv(BIT, activation=[sign_node(), node("MaxPool", "s", "u", "pool", kernel_shape=[2, 2])]),
        ["its input is not binary: signs that went through MaxPool 'pool'"],
    ),
    "different scales": (
        conv(
            signs((3, 8, 1, 1)),
            activation=[sign_node(), node("Mul", "s half", "m"), node("Concat", "s m", "u", "cat", axis=1)],
            constants=HALF,
        ),
        ["its input is not binary: signs and two values (-0.5, +0.5), joined by Concat 'cat'"],
    ),
    "different kinds": (
        conv(
            signs((3, 8, 1, 1)),
            activation=[sign_node(), node("Ternary", "x", "t"), node("Concat", "s t", "u", "cat", axis=1)],
        ),
        ["its input is not binary: signs and three values (-1, 0, +1), joined by Concat 'cat'"],
    ),
    "signs and real values": (
        conv(signs((3, 8, 1, 1)), activation=[sign_node(), node("Concat", "s x", "u", "cat", axis=1)]),
        ["its input is not binary: signs and other values, joined by Concat 'cat'"],
    ),
    "stack": (
        graph([sign_node(), MATMUL], (2, 3, 4), {"w": signs((2, 4, 5))}),
        ["its weights are a stack of matrices (2, 4, 5), not one matrix"],
    ),
    "vector": (graph([sign_node(), MATMUL], (2, 4), {"w": signs((4,))}), ["its weights are a vector, not one matrix"]),
    "two activations": (
        graph([sign_node(), node("Relu", "k", "r", "relu"), node("MatMul", "s r", "y", "layer")], (2, 4), {}, k=(4, 3)),
        ["neither operand is a constant: they come from Sign 's' and Relu 'relu'"],
    ),
    "scale below float32": (
        graph([sign_node(), node("Mul", "s tiny", "u"), node("MatMul", "u w", "y", "layer")], (2, 4), {
            "w": signs((4, 5)) * np.float32(1e-30), "tiny": np.array(1e-30, "float32")
        }),
        ["the scale of its weights does not fit float32"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLINED)
def test_reasons(name: str) -> None:
    """Breaks if a layer that cannot run on bits is rewritten, changes its result, or is left without the right reason."""
    build, reasons = DECLINED[name]
    model = build()
    after, reports = apply(model, recognise_layers)
    report = only(reports)
    assert (report.name, report.binary, report.zero_weights) == ("layer", False, 0)
    assert list(report.reasons) == reasons
    assert len(reasons) <= report.distance < len(reasons) + 1
    assert types(after) == types(model)


def test_reports_are_in_graph_order_and_sorted_by_distance() -> None:
    """Breaks if --explain lists layers in another order than they run, or the nearest miss is not the nearest."""
    nodes = [
        node("Conv", "x real", "a", "first"),
        sign_node("a", "s"),
        node("Conv", "s bit", "b", "second"),
        node("Conv", "s nearly", "c", "third"),
        node("Conv", "b bit", "d", "fourth"),
        node("Conv", "s farther", "e", "fifth"),
        node("Sum", "c d e", "y"),
    ]
    bit = signs((4, 4, 1, 1))
    nearly, farther = bit.copy(), bit.copy()
    nearly[0, 0], farther[0, 0] = 1.25, 4.0
    constants = ZERO | {"real": REAL[:1, :, :1, :1].repeat(4, 0), "bit": bit, "nearly": nearly, "farther": farther}
    model = network(nodes, (1, 4, 5, 5), constants)
    _, reports = apply(model, recognise_layers)
    assert [report.name for report in reports] == ["first", "second", "third", "fourth", "fifth"]
    assert [report.binary for report in reports] == [False, True, False, False, False]
    near = sorted((report for report in reports if not report.binary), key=lambda report: report.distance)
    assert [report.name for report in near] == ["fourth", "third", "fifth", "first"]


def test_sums_that_float32_cannot_hold_stay_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a layer with too many products for exact integers is called binary."""
    monkeypatch.setattr(module, "_LONGEST_SUM", 35)
    _, reports = apply(convolution(BIT, (1, 4, 5, 5)), recognise_layers)
    assert only(reports).reasons == ("it sums more than 35 products, which float32 does not hold exactly",)


def test_the_output_keeps_its_name() -> None:
    """Breaks if the network's output, or a value that validate compares, gets another name."""
    after, _ = apply(convolution(BIT * np.float32(0.5), (1, 4, 5, 5)), recognise_layers)
    assert [value.name for value in after.graph.output] == ["y"]
    assert after.graph.node[-1].output[0] == "y"


# --- mistakes on purpose --------------------------------------------------------------------------------------------


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
