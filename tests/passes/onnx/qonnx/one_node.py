"""Models of one QONNX node, their expansion run by onnxruntime, and QONNX's own implementation of the node."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper

from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx

DOMAIN = "qonnx.custom_op.general"

# Any float32: NaN, infinities, both zeros and denormals too.
any_float = st.floats(width=32) | st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -1e-45, float("nan")])


def images(shape: Sequence[int]) -> st.SearchStrategy[np.ndarray]:
    """float32 arrays of ``shape`` with any values."""
    return arrays.arrays(np.float32, tuple(shape), elements=any_float)


def model_of(
    op_type: str,
    inputs: Mapping[str, np.ndarray | None],
    shapes: Mapping[str, Sequence[int | str | None] | None],
    domain: str = DOMAIN,
    **attributes: object,
) -> onnx.ModelProto:
    """One node, called "layer.quantiser", with the output ``y``.

    Args:
        op_type: operator.
        inputs: in the node's order; None for an input of the graph, an array for an initializer.
        shapes: of the graph's inputs and of ``y``.
        domain: of the node.
        attributes: of the node.
    """
    node = helper.make_node(op_type, list(inputs), ["y"], name="layer.quantiser", domain=domain, **attributes)
    node.metadata_props.add(key="scope", value="layer")
    values = {name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[name]) for name in shapes}
    graph = helper.make_graph(
        [node],
        "network",
        [values[name] for name, array in inputs.items() if array is None],
        [values["y"]],
        [numpy_helper.from_array(array, name) for name, array in inputs.items() if array is not None],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """The only output of a model of standard operators, which onnx.checker accepts."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def expanded(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """What onnxruntime computes from the expansion of ``model``."""
    return run(expand_qonnx(model), **feeds)


def qonnx_says(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """What QONNX's own numpy implementation computes from the one node of ``model``; skips on Python 3.10."""
    if sys.version_info < (3, 11):
        pytest.skip("QONNX wants an older onnx than bnn-deploy on Python 3.10")
    from qonnx.custom_op import registry

    context = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} | feeds
    with np.errstate(all="ignore"):
        registry.getCustomOp(model.graph.node[0]).execute_node(context, model.graph)
    return context["y"]


def operators(model: onnx.ModelProto) -> list[str]:
    """The operator types of the expansion of ``model``."""
    return [node.op_type for node in expand_qonnx(model).graph.node]
