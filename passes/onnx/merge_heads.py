"""Merge two linear heads whose outputs are averaged into one.

Before::

    logits = Div(Add(Gemm(x, W1, b1), Gemm(x, W2, b2)), 2)
After::

    logits = Gemm(x, (W1 + W2) / 2, (b1 + b2) / 2)

BCDNet trains a class head and a distillation head and averages them; merged, they cost half (the papers count them merged).
Where: before import, where a head still is one node. Weights are averaged in float64 and rounded once.
Not handled: heads with alpha, beta or transA, with other readers of their outputs, or a mean of more than two.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def merge_heads(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` with every pair of averaged heads merged."""
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, int] = {}
    for name in (*(i for node in graph.node for i in node.input), *(output.name for output in graph.output)):
        readers[name] = readers.get(name, 0) + 1
    for mean in list(graph.node):
        heads = _averaged_heads(mean, producers, constants, readers)
        if heads is not None:
            _merge(graph, mean, producers[mean.input[0]], heads, constants)
    return merged


def _averaged_heads(
    mean: onnx.NodeProto,
    producers: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
    readers: dict[str, int],
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    factor = {"Div": 2.0, "Mul": 0.5}.get(mean.op_type)
    if factor is None or mean.input[1] not in constants:
        return None
    divisor = numpy_helper.to_array(constants[mean.input[1]])
    total = producers.get(mean.input[0])
    if divisor.size != 1 or float(divisor.reshape(())) != factor or total is None or total.op_type != "Add":
        return None
    first, second = (producers.get(name) for name in total.input)
    if first is None or second is None:
        return None
    heads = first, second
    for head in heads:
        if head.op_type != "Gemm" or len(head.input) != 3 or readers[head.output[0]] != 1:
            return None
        if not all(name in constants for name in head.input[1:]):
            return None
    attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in head.attribute} for head in heads]
    shapes = [[tuple(constants[name].dims) for name in head.input[1:]] for head in heads]
    plain = all(a.get("alpha", 1.0) == 1.0 and a.get("beta", 1.0) == 1.0 and not a.get("transA", 0) for a in attributes)
    same = attributes[0].get("transB", 0) == attributes[1].get("transB", 0) and shapes[0] == shapes[1]
    if not plain or not same or first.input[0] != second.input[0] or readers[total.output[0]] != 1:
        return None
    return heads


def _merge(
    graph: onnx.GraphProto,
    mean: onnx.NodeProto,
    total: onnx.NodeProto,
    heads: tuple[onnx.NodeProto, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
) -> None:
    first, second = heads
    names = []
    for one, other in zip(first.input[1:], second.input[1:], strict=True):
        values = [numpy_helper.to_array(constants[name]).astype(np.float64) for name in (one, other)]
        names.append(f"{one}+{other}")
        average = ((values[0] + values[1]) / 2).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(average, names[-1]))
    head = onnx.helper.make_node(
        "Gemm", [first.input[0], *names], list(mean.output), name=f"{first.name} + {second.name}"
    )
    head.attribute.extend(first.attribute)
    position = list(graph.node).index(mean)
    graph.node.insert(position, head)
    for node in (first, second, total, mean):
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
