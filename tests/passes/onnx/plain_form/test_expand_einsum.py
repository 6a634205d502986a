"""expand_einsum: matrix products spelt as Einsum are matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from bnn_deploy.passes.onnx.canonicalise import canonicalise
from bnn_deploy.passes.onnx.import_report import ImportOptions
from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

# Small whole numbers: every sum is exact in float32, in any order.
IMAGE = np.random.default_rng(0).integers(-3, 4, (2, 3, 4, 5)).astype(np.float32)
WEIGHTS = {
    "bchw,cd->bdhw": (3, 6),
    "oc,bchw->bohw": (6, 3),
    "...w,wd->...d": (5, 6),
    "...hw,hd->...wd": (4, 6),
    "bchw,w->bch": (5,),
    "h,bchw->bcw": (4,),
    "b c h w, w d": (5, 6),
}


@pytest.mark.parametrize("equation", WEIGHTS)
def test_product_with_weights(equation: str) -> None:
    """Breaks if an axis is summed, moved or dropped that should not be, or a binary layer stays hidden in an Einsum."""
    weight = np.random.default_rng(1).integers(-3, 4, WEIGHTS[equation]).astype(np.float32)
    first = equation.startswith(("oc", "h,"))
    nodes = [helper.make_node("Einsum", ["w", "x"] if first else ["x", "w"], ["y"], equation=equation)]
    expected, found, operators = before_and_after(model_of(nodes, {"w": weight}, ["batch", 3, 4, 5]), IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert "Einsum" not in operators and operators.count("MatMul") == 1


@pytest.mark.parametrize("equation", ["bqhd,bkhd->bhqk", "bchw,bcgw->bchg", "bhqd, bhkd -> bqhk"])
def test_product_of_two_activations(equation: str) -> None:
    """Breaks if attention written with einsum multiplies the wrong rows."""
    nodes = [helper.make_node("Einsum", ["x", "x"], ["y"], equation=equation)]
    expected, found, operators = before_and_after(model_of(nodes, {}, ["batch", 3, 4, 5]), IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert "Einsum" not in operators


@pytest.mark.parametrize("equation", ["bchw->bc", "bchw,bchw->b", "bchw,bchw->bchw", "bchw,bcde->bhwde"])
def test_other_sums_are_left(equation: str) -> None:
    """Breaks if a sum over no index, or over several, is taken for a matrix product."""
    inputs = ["x"] * (1 + equation.count(","))
    nodes = [helper.make_node("Einsum", inputs, ["y"], equation=equation)]
    expected, found, operators = before_and_after(model_of(nodes, {}, ["batch", 3, 4, 5]), IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Einsum"]


def test_the_product_is_called_as_the_einsum_was() -> None:
    """Breaks if reports name a layer after one of the transpositions that stand around it."""
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], "mix", equation="bchw,cd->bdhw")]
    weight = np.ones((3, 6), np.float32)
    canonical, report = canonicalise(model_of(nodes, {"w": weight}, ["batch", 3, 4, 5]), ImportOptions())
    (layer,) = report.layers
    assert [node.name for node in canonical.graph.node if node.op_type == "MatMul"] == [layer.name]
