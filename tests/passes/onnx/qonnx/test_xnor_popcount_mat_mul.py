"""XnorPopcountMatMul in standard operators: bit by bit what QONNX computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx
from tests.passes.onnx.qonnx.one_node import expanded, model_of, operators, qonnx_says


def product(weights: np.ndarray | None, shape: list[int | str | None]) -> onnx.ModelProto:
    shapes = {"x": shape, "y": [*shape[:-1], "columns"], "weights": ["rows", "columns"]}
    if weights is not None:
        del shapes["weights"]
    return model_of("XnorPopcountMatMul", {"x": None, "weights": weights}, shapes)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_counts_agreements(depth: int, columns: int, seed: int) -> None:
    """Breaks when the result is anything but the number of equal bits, exactly, also for an odd depth."""
    random = np.random.default_rng(seed)
    x, weights = (random.integers(0, 2, shape).astype(np.float32) for shape in ((2, 3, depth), (depth, columns)))
    model = product(weights, ["batch", 3, depth])
    agreements = (x[..., None] == weights).sum(axis=-2)
    np.testing.assert_array_equal(expanded(model, x=x), agreements)
    np.testing.assert_array_equal(qonnx_says(model, x=x), agreements)


def test_shape_of_the_expansion() -> None:
    """Breaks when the product of ±1 is spelt so that the layer's recogniser does not find it, or loses its name."""
    model = product(np.ones((4, 2), np.float32), ["batch", 4])
    assert operators(model) == ["Mul", "Sub", "Mul", "Sub", "MatMul", "Mul", "Add"]
    assert next(node for node in expand_qonnx(model).graph.node if node.op_type == "MatMul").name == "layer.quantiser"


def test_an_unknown_depth_is_refused() -> None:
    """Breaks when K, which the result depends on, would be guessed."""
    with pytest.raises(ModelFileError, match="'weights' whose number of rows the file does not give"):
        expand_qonnx(product(None, ["batch", 4]))
