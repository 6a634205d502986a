"""Write padding that repeats the image as picking elements: what is picked from signs are signs.

Before::

    y = Pad(x: (N, 8, 4, 4), [0, 0, 1, 1, 0, 0, 1, 1], mode="reflect")
After::

    y = Gather(Gather(x, [1, 0, 1, 2, 3, 2], axis=2), [1, 0, 1, 2, 3, 2], axis=3)

Where: after shape inference.
Not handled: extents or pads that are not known, negative pads, constants (they stay Pad).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, is_standard, new_constant, replace_value, static_shape

# ONNX's names of the modes, and numpy's.
_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_LARGEST = 1 << 16


def expand_border(graph: ir.Graph, node: ir.Node) -> None:
    """Replace ``node`` if it is such a Pad."""
    mode = _MODES.get(node.attributes.get_string("mode", "constant")) if is_standard(node, "Pad") else None
    shape = static_shape(node.inputs[0]) if mode is not None else None
    pads = constant_of(node.inputs[1]) if shape is not None and len(node.inputs) > 1 else None
    if mode is None or shape is None or pads is None:
        return
    chosen = (
        constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else np.arange(len(shape))
    )
    if chosen is None or pads.size != 2 * chosen.size:
        return
    before, after = pads.reshape(2, -1).tolist()
    widths = {
        int(axis) % len(shape): pair for axis, *pair in zip(chosen.tolist(), before, after, strict=True) if any(pair)
    }
    if any(not shape[axis] or min(pair) < 0 or max(pair) >= _LARGEST for axis, pair in widths.items()):
        return
    value = node.inputs[0]
    for axis, pair in widths.items():
        places = np.pad(np.arange(shape[axis], dtype=np.int64), pair, mode=mode)
        indices = new_constant(graph, f"{node.outputs[0].name}_places_{axis}", places)
        gather = ir.node("Gather", [value, indices], {"axis": axis}, name=node.name)
        gather.metadata_props.update(node.metadata_props)
        gather.outputs[0].name, gather.outputs[0].type = f"{node.outputs[0].name}_axis_{axis}", node.inputs[0].type
        graph.insert_before(node, gather)
        value = gather.outputs[0]
    if value is not node.inputs[0]:
        replace_value(node.outputs[0], value)
        graph.remove(node, safe=True)
