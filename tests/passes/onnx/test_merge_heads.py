"""merge_heads: two averaged linear heads become one; anything that only looks like it stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bnn_deploy.passes.onnx.merge_heads import merge_heads
from tests.passes.onnx_models import model, node, run

X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


def heads(
    first: dict | None = None,
    second: dict | None = None,
    mean: str = "Div",
    by: float = 2.0,
    extra: list[onnx.NodeProto] | None = None,
    second_input: str = "x",
    output: str = "y",
) -> onnx.ModelProto:
    """Gemm and Gemm, added, and multiplied or divided by a number."""
    random = np.random.default_rng(1)
    constants = {name: random.normal(size=(4, 4)).astype("float32") for name in ("w1", "w2")}
    constants |= {name: random.normal(size=4).astype("float32") for name in ("b1", "b2")}
    constants["by"] = np.array(by, "float32")
    nodes = [
        node("Abs", "x", "other"),
        node("Gemm", "x w1 b1", "h1", "head", **(first or {})),
        node("Gemm", f"{second_input} w2 b2", "h2", "head_dist", **(second or {})),
        node("Add", "h1 h2", "sum"),
        node(mean, "sum by", "y", "mean"),
        *(extra or []),
    ]
    return model(nodes, [2, 4], constants, output=output, rank=2)


def types(network: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in network.graph.node]


@pytest.mark.parametrize(("mean", "by"), [("Div", 2.0), ("Mul", 0.5)])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1}])
def test_averaged_heads_become_one(mean: str, by: float, attributes: dict) -> None:
    """Breaks: BCDNet's distillation head costs a second matrix product."""
    network = heads(attributes, attributes, mean, by)
    merged = merge_heads(network)
    onnx.checker.check_model(merged)
    assert types(merged) == ["Abs", "Gemm"]
    assert merged.graph.node[-1].name == "head + head_dist"
    assert list(merged.graph.node[-1].output) == ["y"]
    # Logits are sums of 4 products and a bias; float32 rounds weights, products, sums and mean, relative error 2**-24 each, of
    # values that sum up to at most 5 * 3 * 3: 8 roundings * 45 * 2**-24 < 3e-5.
    np.testing.assert_allclose(run(merged, X), run(network, X), rtol=0, atol=3e-5)


def test_weights_are_averaged_and_rounded_once() -> None:
    """Breaks: weights are added in float32, which rounds (or overflows) twice."""
    merged = merge_heads(heads())
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in heads().graph.initializer}
    found = {t.name: onnx.numpy_helper.to_array(t) for t in merged.graph.initializer}
    expected = ((tensors["w1"].astype(float) + tensors["w2"].astype(float)) / 2).astype("float32")
    np.testing.assert_array_equal(found["w1+w2"], expected)
    assert set(found) == {"w1+w2", "b1+b2"}, "unused weights stay in the model"


@pytest.mark.parametrize(
    "network",
    [
        heads(by=3.0),
        heads(mean="Mul", by=2.0),
        heads(first={"alpha": 2.0}),
        heads(second={"beta": 0.5}),
        heads(first={"transB": 1}),
        heads(second_input="other"),
        heads(mean="Sub", by=2.0),
        heads(extra=[node("Neg", "h1", "z")], output="z"),
        heads(extra=[node("Neg", "sum", "z")], output="z"),
    ],
    ids=[
        "a third",
        "doubled",
        "alpha",
        "beta",
        "one transposed",
        "different inputs",
        "difference",
        "head read elsewhere",
        "sum read elsewhere",
    ],
)
def test_everything_else_is_left_alone(network: onnx.ModelProto) -> None:
    """Breaks: heads are merged that compute something else than their mean, or that are needed apart."""
    assert merge_heads(network) == network


def test_the_model_given_is_not_changed() -> None:
    """Breaks: the statistics of the file are taken from a half merged model."""
    network = heads()
    content = network.SerializeToString()
    merge_heads(network)
    assert network.SerializeToString() == content
