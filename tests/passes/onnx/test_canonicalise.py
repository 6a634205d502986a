"""canonicalise: the report speaks of the nodes by the names that they have in the model that goes with it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.passes.onnx.canonicalise import canonicalise
from bnn_deploy.passes.onnx.import_report import ImportOptions


def test_the_report_names_the_nodes_of_the_model() -> None:
    """Breaks if a report, or inspect, speaks of layers and activations that no node of the compiled model is called after."""
    weights = np.random.default_rng(0).choice([-1.0, 1.0], (8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="/body/inner/Relu"),
        helper.make_node("Sub", ["r", "one"], ["c"], name="/body/Sub"),
        helper.make_node("Sign", ["c"], ["s"], name="/body/Sign"),
        helper.make_node("MatMul", ["s", "w"], ["m"], name="/body/MatMul"),
        helper.make_node("Greater", ["m", "one"], ["g"], name="/body/Greater"),
        helper.make_node("Where", ["g", "one", "minus"], ["t"], name="/body/Where"),
        helper.make_node("MatMul", ["t", "w"], ["y"], name="/body/MatMul_1"),
    ]
    constants = {"w": weights, "one": np.float32(1), "minus": np.float32(-1)}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    canonical, report = canonicalise(model, ImportOptions(sign_zero="0"))
    layers = [node.name for node in canonical.graph.node if node.op_type == "BinaryLinear"]
    signs = [node.name for node in canonical.graph.node if node.op_type == "Sign"]
    assert len(layers) == len(signs) == 2
    assert [row.name for row in report.layers] == layers
    assert [row.name for row in report.activations] == signs
