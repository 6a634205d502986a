"""Make a constant of each extent of a tensor that is known, though others (the batch) are not.

Before::

    s = Shape(x: (N, 64, 8, 8));  c = Gather(s, 1);  h = Slice(s, [2], [4])
After::

    c = 64;  h = [8, 8]

The other exporter of PyTorch writes ``n, c, h, w = x.shape`` so; the channel shuffle ``x.view(n, 2, c // 2, h, w)`` divides by it.
Where: after shape inference, before constants are folded.
Not handled: extents that are themselves dynamic, and selections that hold one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    new_constant,
    producer_of,
    replace_value,
    required_input,
)


def fold_extents(graph: ir.Graph) -> bool:
    """Change ``graph`` in place; says whether anything was found."""
    found = False
    for node in list(graph):
        selected = _selected(node)
        if selected is None or not node.outputs[0].uses():
            continue
        found = True
        value = new_constant(graph, f"{node.outputs[0].name}_extent", np.asarray(selected, np.int64))
        replace_value(node.outputs[0], value)
    return found


def _selected(node: ir.Node) -> np.ndarray | None:
    """The extents that ``node`` picks out of a shape, if all of them are known."""
    if not is_standard(node, "Gather", "Slice"):
        return None
    shape_of = producer_of(node.inputs[0])
    extents = _extents(shape_of) if is_standard(shape_of, "Shape") else None
    arguments = [None if value is None else constant_of(value) for value in node.inputs[1:]]
    if extents is None or any(a is None and v is not None for a, v in zip(arguments, node.inputs[1:], strict=True)):
        return None
    if node.op_type == "Gather":
        places = np.asarray(arguments[0])
        if places.size == 0 or places.max() >= len(extents) or places.min() < -len(extents):
            return None
        selected = np.asarray(extents)[places]
    else:
        numbers = [int(a.reshape(-1)[0]) for a in (*arguments[:2], *arguments[3:]) if a is not None and a.size == 1]
        if len(numbers) < 2 or 0 in numbers[2:]:
            return None
        selected = np.asarray(extents)[slice(*numbers)]
    return None if (selected < 0).any() else selected


def _extents(node: ir.Node) -> list[int] | None:
    """What a Shape node gives, -1 for an extent that is not known."""
    shape = required_input(node).shape
    if shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
    return [size if isinstance(size, int) else -1 for size in shape][start:end]
