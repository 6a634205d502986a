"""recognise_layers: every reason to leave a layer alone, weights of 0, and what is reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.layers import recognise_layers as module
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import (
    HALF,
    ZERO,
    apply,
    convolution,
    network,
    numbers,
    only,
    run,
    sign_node,
    signs,
    types,
)
from tests.passes.onnx_models import node


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
    after, reports = apply(model, lambda graph: recognise_layers(graph, "-1"))
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
    after, reports = apply(model, lambda graph: recognise_layers(graph, "float"))
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
    "other channels": (conv(signs((3, 5, 3, 3))), ["its weights take 5 values where its input has 4"]),
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
