"""Fewer numbers for the same BatchNormalization: its four vectors become two.

    before   BinaryConv -> Mul(scale) -> BatchNormalization(gamma, beta, mean, variance, epsilon)
    after    BinaryConv               -> BatchNormalization(a, b, zeros, ones, epsilon=0)

with ``a = scale * gamma / sqrt(variance + epsilon)`` and ``b = beta - mean * gamma / sqrt(variance + epsilon)``,
computed in float64 and rounded once; all BatchNormalizations of one width share a ConstantOfShape of zeros and one of
ones. In BiMLP-S, which is mostly BatchNorm, the statistics and scales would be an eighth of the file. The node stays a
BatchNormalization, and the file still holds two trained numbers per channel.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.onnx_files.node_naming import LAYER_KEY
from bnn_deploy.ops.registry import DOMAIN


def compact_batch_norms(graph: ir.Graph) -> None:
    """Rewrite every BatchNormalization of ``graph`` whose parameters are constants of its own; changed in place."""
    for node in list(graph):
        if node.op_type == "BatchNormalization" and node.domain == "":
            _compact(graph, node)


def _compact(graph: ir.Graph, node: ir.Node) -> None:
    x, gamma, beta, mean, variance = node.inputs
    if x is None or gamma is None or beta is None:
        return
    # A module called twice has two nodes with the same parameters, which must then stay as they are.
    if any(len(value.uses()) != 1 for value in (gamma, beta)):
        return
    old_gamma, old_beta, old_mean, old_variance = (_constant(value) for value in (gamma, beta, mean, variance))
    if old_gamma is None or old_beta is None or old_mean is None or old_variance is None:
        return
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    scale = old_gamma / np.sqrt(old_variance + epsilon)
    shift = old_beta - old_mean * scale
    layer, layer_scale = _scaled_layer(x, len(scale))
    if layer_scale is not None:
        scale = scale * layer_scale
        node.replace_input_with(0, layer)
    _set(gamma, scale)
    _set(beta, shift)
    node.replace_input_with(3, _shared(graph, 0.0, len(scale)))
    node.replace_input_with(4, _shared(graph, 1.0, len(scale)))
    # Only training reads the other attributes.
    node.attributes.clear()
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.0)


def _scaled_layer(x: ir.Value, channels: int) -> tuple[ir.Value | None, np.ndarray | None]:
    """For ``x = Mul(BinaryConv, constant (1, C, 1, 1))`` that nobody else reads: its two factors, the constant (C,)."""
    product = x.producer()
    if product is None or product.op_type != "Mul" or len(x.uses()) != 1 or x.is_graph_output():
        return None, None
    factor, constant = product.inputs[0], _constant(product.inputs[1])
    layer = None if factor is None else factor.producer()
    if layer is None or (layer.domain, layer.op_type) != (DOMAIN, "BinaryConv") or constant is None:
        return None, None
    return (factor, constant.reshape(-1)) if constant.shape == (1, channels, 1, 1) else (None, None)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """The value's content as float64, None if it is computed."""
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy().astype(np.float64)


def _set(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def _shared(graph: ir.Graph, fill: float, size: int) -> ir.Value:
    """The output of one ConstantOfShape for all readers: 9 bytes instead of 4 for each element."""
    name = f"batch_norm/{fill:g}_{size}"
    for node in graph:
        if node.op_type != "ConstantOfShape":
            break
        if node.outputs[0].name == name:
            return node.outputs[0]
    shape = ir.Value(name=f"{name}/shape", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    shape.const_value = ir.tensor(np.array([size], np.int64), name=shape.name)
    graph.register_initializer(shape)
    value = ir.tensor(np.array([fill], np.float32))
    node = ir.node("ConstantOfShape", [shape], {"value": value}, metadata_props={LAYER_KEY: ""})
    node.outputs[0].name = name
    node.outputs[0].shape = ir.Shape([size])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(graph[0], node)
    return node.outputs[0]
