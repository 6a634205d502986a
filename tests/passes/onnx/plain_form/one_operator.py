"""Models of one operator, or a few, run by onnxruntime before and after normalise_graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.passes.onnx.plain_form.name_modules import rename_nodes
from bnn_deploy.passes.onnx.plain_form.normalise_graph import normalise_graph


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[int | str]) -> onnx.ModelProto:
    """From ``x`` of this shape to ``y``."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """``y``, as onnxruntime computes it."""
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def before_and_after(model: onnx.ModelProto, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What the model computes, what its plain form does, and the operators of that."""
    plain = normalise_graph(model)
    rename_nodes(plain.graph)
    return run(model, x), run(ir.to_proto(plain), x), [node.op_type for node in plain.graph]
