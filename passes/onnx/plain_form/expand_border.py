"""Write padding that repeats the image as picking elements: what is picked from signs are signs.

Before::

    y = Pad(x: (N, 8, 4, 4), [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
After::

    y = Gather(Gather(x, [1, 0, 1, 2, 3, 2], axis=2), [1, 0, 1, 2, 3, 2], axis=3)

Where: after shape inference.
Not handled: extents or pads that are not known, negative pads, constants (they stay Pad).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    new_constant,
    optional_constant,
    replace_value,
    required_input,
    static_shape,
)
from bnn_deploy.passes.onnx.node_writer import NodeWriter

# ONNX's names of the modes, and numpy's.
_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_LARGEST = 1 << 16


def expand_border(graph: ir.Graph, node: ir.Node) -> None:
    """Replace ``node`` if it is such a Pad."""
    mode = _MODES.get(node.attributes.get_string("mode", "constant")) if is_standard(node, "Pad") else None
    if mode is None:
        return
    image = required_input(node)
    shape, pads = static_shape(image), constant_of(node.inputs[1])
    chosen = None if shape is None else optional_constant(node, 3, np.arange(len(shape)))
    if shape is None or pads is None or chosen is None or pads.size != 2 * chosen.size:
        return
    before, after = pads.reshape(2, -1).tolist()
    widths = {
        int(axis) % len(shape): pair for axis, *pair in zip(chosen.tolist(), before, after, strict=True) if any(pair)
    }
    if any(not shape[axis] or min(pair) < 0 or max(pair) >= _LARGEST for axis, pair in widths.items()):
        return
    writer, value = NodeWriter(graph, node), image
    for axis, pair in widths.items():
        places = np.pad(np.arange(shape[axis] or 0, dtype=np.int64), pair, mode=mode)
        indices = new_constant(graph, f"{node.outputs[0].name}_places_{axis}", places)
        value = writer.write("Gather", [value, indices], {"axis": axis}, name=node.name)
    if value is not image:
        replace_value(node.outputs[0], value)
        graph.remove(node, safe=True)
