"""A one-node ONNX model of an operator, run by onnxruntime from its function body."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.ops.registry import DOMAIN, OPERATORS, OPSET, STANDARD_OPSET


def node_model(
    name: str, arrays: list[np.ndarray], attributes: dict[str, Any], constant_inputs: bool = True
) -> onnx.ModelProto:
    """X is the input; the other arrays are initializers, or inputs too if not ``constant_inputs``."""
    operator = OPERATORS[name]
    node = helper.make_node(name, list(operator.inputs), ["Y"], name="layer", domain=DOMAIN, **attributes)
    output = operator.infer_shape([array.shape for array in arrays], operator.attributes_of(node))
    given = dict(zip(operator.inputs, arrays, strict=True))
    inputs = [key for key in given if key == "X" or not constant_inputs]
    graph = helper.make_graph(
        [node],
        "main",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(given[k].dtype), given[k].shape)
            for k in inputs
        ],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(array, key) for key, array in given.items() if key not in inputs],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid(DOMAIN, OPSET)],
        functions=[operator.function()],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_function(
    name: str, arrays: list[np.ndarray], attributes: dict[str, Any], constant_inputs: bool = True
) -> np.ndarray:
    """onnxruntime's result of the operator's function body."""
    model = node_model(name, arrays, attributes, constant_inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = dict(zip(OPERATORS[name].inputs, arrays, strict=True))
    return session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})[0]


def run_reference(name: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    """The numpy reference, with the attributes' defaults filled in."""
    operator = OPERATORS[name]
    return operator.reference(arrays, {**operator.defaults, **attributes})
