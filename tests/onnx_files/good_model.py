"""A small valid model to damage, and its parts by name."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.bits import pack_bits
from bnn_deploy.ops.registry import DOMAIN, OPSET, STANDARD_OPSET, functions


def good_model() -> onnx.ModelProto:
    """Sign, Slice and Concat, then a BinaryLinear with a Mul; dynamic batch."""
    nodes = [
        helper.make_node("Sign", ["input", "threshold"], ["signs"], name="act", domain=DOMAIN),
        helper.make_node("Slice", ["signs", "one", "ten", "one"], ["tail"], name="cut"),
        helper.make_node("Slice", ["signs", "zero", "one", "one"], ["head"], name="cut_2"),
        helper.make_node("Concat", ["tail", "head"], ["rolled"], name="join", axis=1),
        helper.make_node("BinaryLinear", ["rolled", "W"], ["sums"], name="layer.1", domain=DOMAIN, in_features=10),
        helper.make_node("Mul", ["sums", "scale"], ["logits"], name="layer.1/Mul"),
    ]
    initializers = [
        numpy_helper.from_array(np.float32(0), "threshold"),
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array([10]), "ten"),
        numpy_helper.from_array(pack_bits(np.ones((3, 10))), "W"),
        numpy_helper.from_array(np.ones(3, np.float32), "scale"),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 10])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        initializers,
    )
    opsets = [helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions(), ir_version=10)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(item for item in model.graph.node if item.name == name)


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)
