"""Thresholds that are vectors: of channels they stay in the Sign, along another axis they are subtracted before it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.passes.onnx.activations.activation_models import F32, neighbours, recognised, run, standard

CASES = [
    ((2, 3, 8), (8,), ["Sign"]),
    ((2, 3, 8), (3, 1), ["Sub", "Sign"]),
    ((2, 3, 8), (3, 8), ["Sub", "Sign"]),
    ((2, 3, 4, 8), (3, 1, 1), ["Sign"]),
    ((2, 3, 4, 8), (2, 3, 1, 1), ["Sign"]),
    ((2, 3, 4, 8), (8,), ["Sign"]),
    ((2, 3, 4, 8), (4, 1), ["Sub", "Sign"]),
    ((2, 3, 4, 8), (3, 4, 8), ["Sub", "Sign"]),
]


@pytest.mark.parametrize("operator", ["Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("shape, layout, expected", CASES)
def test_a_threshold_along_any_axis(operator: str, shape: tuple, layout: tuple, expected: list[str]) -> None:
    """Breaks if a vector of thresholds meets the wrong axis, changes a value beside a threshold, or cannot be compiled."""
    random = np.random.default_rng(0)
    thresholds = random.choice(np.array([0, 1, -0.5, 1e-38, -1e-45, 3e7], F32), layout)
    thresholds.reshape(-1)[:2] = 0.25, -2.0
    arrays = {"t": thresholds, "one": F32(1), "minus": F32(-1), "w": np.ones((8, 1), F32)}
    nodes = [
        standard(operator, "x t", "g"),
        standard("Where", "g one minus", "a"),
        standard("MatMul", "a w", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(shape)) for name in ("a", "y")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    network = onnx.shape_inference.infer_shapes(network)
    model, _ = recognised(network)
    assert [node.op_type for node in model.graph.node[:-1]] == expected
    x = random.choice(neighbours(np.unique(thresholds)), shape)
    x = np.where(random.random(shape) < 0.5, np.broadcast_to(thresholds, shape), x).astype(F32)
    np.testing.assert_array_equal(run(model, x), run(network, x))
