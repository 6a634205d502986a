"""Take out nodes that do nothing in inference.

Before::

    d = Dropout(x);  c = Cast(d, to float32);  s = Slice(c, everything);  y = Relu(s)
After::

    y = Relu(x)

Where: before constants are folded.
Not handled: a Dropout whose mask is read or that is told to train.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, is_standard, optional_constant, replace_value, required_input


def drop_no_ops(graph: ir.Graph) -> None:
    """Change ``graph`` in place; nodes that nobody reads any more are left for the next clean-up."""
    for node in graph:
        if _does_nothing(node):
            replace_value(node.outputs[0], required_input(node))
        skip_whole_slice(node)


def skip_whole_slice(node: ir.Node) -> None:
    """``x[:, a:b]`` is exported as two Slice nodes, the first of which takes everything: its readers read x instead."""
    if not is_standard(node, "Slice") or len(node.inputs) < 3 or node.outputs[0].is_graph_output():
        return
    starts, ends, *_ = (constant_of(value) for value in node.inputs[1:])
    steps = optional_constant(node, 4, np.ones(1, np.int64))
    if starts is None or ends is None or steps is None:
        return
    if not starts.any() and (ends == np.iinfo(np.int64).max).all() and (steps == 1).all():
        node.outputs[0].replace_all_uses_with(required_input(node))


def _does_nothing(node: ir.Node) -> bool:
    if not is_standard(node):
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = optional_constant(node, 2, np.zeros(1, bool))
        mask_is_read = any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:])
        return training is not None and not training.any() and not mask_is_read
    if node.op_type == "Cast":
        source = required_input(node).dtype
        return source is not None and source == node.attributes["to"].as_int()
    return False
