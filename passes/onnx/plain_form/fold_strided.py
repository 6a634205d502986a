"""Read a view of each image's elements by their places in the image, instead of in the flattened batch.

Before::

    p = Add(Mul(Range(0, n, 1), 128), [[0, …, 127]]), n the batch of x;  y = Gather(Reshape(x: (N, 128, 1, 1), [-1]), p)
After::

    y = Reshape(x, [-1, 128])                 (elsewhere Gather(Reshape(x, [-1, 128]), places, axis=1), if in another order)

PyTorch's dynamo exporter writes ``as_strided`` so, which ``flatten`` becomes behind a LayerNorm on channels.
Where: after shape inference and folding.
Not handled: places that are another function of the image's number, or reach into another image.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    new_constant,
    producer_of,
    replace_value,
    required_input,
    static_shape,
)
from bnn_deploy.passes.onnx.node_writer import NodeWriter

# More elements than an image may have are not tabulated.
_LARGEST = 1 << 26


def fold_strided(graph: ir.Graph, node: ir.Node) -> None:
    """Replace ``node`` if it is such a Gather."""
    flat = _flattened(node)
    places = None if flat is None else _places(node.inputs[1], flat)
    shape = None if flat is None else static_shape(flat)
    if flat is None or places is None or shape is None:
        return
    step, offsets = places
    elements = math.prod(extent or 0 for extent in shape[1:])
    if step != elements or not elements or offsets.min() < 0 or offsets.max() >= elements:
        return
    writer = NodeWriter(graph, node)

    def emit(operator: str, value: ir.Value, numbers: np.ndarray, part: str, **attributes: int) -> ir.Value:
        constant = new_constant(graph, f"{node.outputs[0].name}_{part}", numbers)
        return writer.write(operator, [value, constant], attributes, name=node.name)

    value = flat
    if not np.array_equal(offsets.reshape(-1), np.arange(elements)):
        value = emit("Reshape", value, np.asarray([-1, elements]), "flat")
        value = emit("Gather", value, offsets.reshape(-1), "places", axis=1)
    value = emit("Reshape", value, np.asarray([-1, *offsets.shape[1:]]), "shape")
    replace_value(node.outputs[0], value)
    graph.remove(node, safe=True)


def _flattened(node: ir.Node) -> ir.Value | None:
    """What the Gather reads, before it was made one vector."""
    if not is_standard(node, "Gather") or node.attributes.get_int("axis", 0) != 0:
        return None
    reshape = producer_of(node.inputs[0])
    if not is_standard(reshape, "Reshape"):
        return None
    target = constant_of(reshape.inputs[1])
    return None if target is None or target.tolist() != [-1] else required_input(reshape)


def _places(value: ir.Value | None, image: ir.Value) -> tuple[int, np.ndarray] | None:
    """(s, c) if ``value`` is s · b + c, b along axis 0 the number of the image of ``image``; None if not known to be."""
    array = constant_of(value)
    if array is not None:
        return (0, array) if array.dtype.kind == "i" else None
    node = producer_of(value)
    if is_standard(node, "Range"):
        start, step = constant_of(node.inputs[0]), constant_of(node.inputs[2])
        counts = (
            start is not None and step is not None and start == 0 and step == 1 and _is_batch(node.inputs[1], image)
        )
        return (1, np.zeros(1, np.int64)) if counts else None
    if is_standard(node, "Unsqueeze"):
        inner, axes = _places(node.inputs[0], image), constant_of(node.inputs[1])
        if inner is None or axes is None:
            return None
        places = sorted(int(axis) % (inner[1].ndim + axes.size) for axis in axes.reshape(-1))
        if not places or places[0] == 0 or len(set(places)) < len(places):
            return None
        return inner[0], np.expand_dims(inner[1], tuple(places))
    if not is_standard(node, "Add", "Mul"):
        return None
    left, right = _places(node.inputs[0], image), _places(node.inputs[1], image)
    if left is None or right is None:
        return None
    return _product(left, right) if node.op_type == "Mul" else _sum(left, right)


def _product(left: tuple[int, np.ndarray], right: tuple[int, np.ndarray]) -> tuple[int, np.ndarray] | None:
    """Of one that depends on the image and a number."""
    if left[0] == 0:
        left, right = right, left
    if right[0] != 0 or right[1].size != 1 or right[1].ndim > left[1].ndim:
        return None
    factor = int(right[1].reshape(()))
    return left[0] * factor, left[1] * factor


def _sum(left: tuple[int, np.ndarray], right: tuple[int, np.ndarray]) -> tuple[int, np.ndarray] | None:
    try:
        shape = np.broadcast_shapes(left[1].shape, right[1].shape)
    except ValueError:
        return None
    # Axis 0 is that of the images in every term that depends on them, and extent 1 in all.
    aligned = all(c.ndim == len(shape) for s, c in (left, right) if s) and shape[:1] == (1,)
    if not aligned or math.prod(shape) > _LARGEST:
        return None
    return left[0] + right[0], left[1] + right[1]


def _is_batch(value: ir.Value | None, image: ir.Value) -> bool:
    """Whether ``value`` is the first extent of ``image``."""
    node = producer_of(value)
    while is_standard(node, "Squeeze", "Reshape", "Cast", "Gather"):
        if node.op_type == "Gather":
            place = constant_of(node.inputs[1])
            if place is None or place.size != 1 or place.reshape(()) != 0:
                return False
        node = producer_of(node.inputs[0])
    if not is_standard(node, "Shape"):
        return False
    source = required_input(node).shape
    if source is None or image.shape is None or node.attributes.get_int("start", 0) != 0:
        return False
    first, wanted = source[0], image.shape[0]
    # An anonymous extent equals no other.
    return first == wanted and (isinstance(first, int) or first.value is not None)
