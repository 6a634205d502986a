"""Pool before the sign, so that nothing but data movement stands between the sign and its layer.

Before::

    y = Conv(MaxPool(Mul(Sign(x, t), a)), w)                a > 0
After::

    y = Conv(Mul(Sign(MaxPool(x), t), a), w)

A function that never falls commutes with the maximum, exactly: MaxPool(f(x)) = f(MaxPool(x)), rounding of the float
arithmetic in f included; ONNX pads MaxPool with nothing (-inf), which every other element of the window beats. Where f falls
(a < 0) or the signs are moved on the way (Concat), the pooled values are again one of two or three numbers, and the same
activation is applied to them once more.

Where: after ``recognise_activations``; only before layers.
Not handled: windows that may lie in the padding altogether (padding as large as the kernel, some with ceil_mode or dilation),
MaxPool whose indices are read, NaN (the maximum of NaN and a number is up to the runtime), and averages, which hold more than
two values: ``recognise_layers`` says so.
"""

from __future__ import annotations

import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import integers, is_standard, layer_name, required_input
from bnn_deploy.passes.onnx.layers.binary_values import BinaryFacts, BinaryValues
from bnn_deploy.passes.onnx.layers.move_activation import (
    chain_of,
    feeds_layer,
    keeps_threshold,
    write_again,
    write_chain,
)
from bnn_deploy.passes.onnx.node_writer import NodeWriter


def hoist_pooling(graph: ir.Graph) -> None:
    """Change ``graph`` in place; nodes that nobody reads any more are left for the next clean-up."""
    graph.sort()
    facts = BinaryFacts()
    for node in list(graph):
        values = facts.of(node.inputs[0]) if is_standard(node, "MaxPool") else None
        if not isinstance(values, BinaryValues) or not _is_plain(node) or not feeds_layer(node.outputs[0]):
            facts.visit(node)
            continue
        _hoist(graph, node, values, facts)


def _hoist(graph: ir.Graph, node: ir.Node, values: BinaryValues, facts: BinaryFacts) -> None:
    writer = NodeWriter(graph, node)
    value, output = required_input(node), node.outputs[0]
    chain = chain_of(value)
    rank = len(node.attributes["kernel_shape"].as_ints()) + 2
    if chain is not None and values.high > values.low and keeps_threshold(chain.activation, set(range(2, rank)), rank):
        pooled = writer.copy(node, [chain.activation.inputs[0]], shape=output.shape)
        writer.replace(write_chain(writer, chain, pooled.outputs[0], facts))
        return
    pooled = writer.copy(node, [value], shape=output.shape)
    again = write_again(writer, pooled.outputs[0], values, f"{layer_name(node)}/sign", facts)
    if again is not None:
        writer.replace(again)
        return
    graph.remove(pooled, safe=True)
    facts.visit(node)


def _is_plain(node: ir.Node) -> bool:
    """Whether every window holds an element of the image, and nobody reads the indices."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    kernel = list(node.attributes["kernel_shape"].as_ints())
    strides, dilations = (integers(node, name, [1] * len(kernel)) for name in ("strides", "dilations"))
    pads = integers(node, "pads", [0] * (2 * len(kernel)))
    ceil = node.attributes.get_int("ceil_mode", 0) != 0
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", ""):
        # SAME padding is smaller than the kernel on either side, VALID is none.
        pads = [0] * (2 * len(kernel)) if set(dilations) == {1} else [1] * (2 * len(kernel))
    if any(pads) and (
        set(dilations) != {1} or any(pad >= extent for pad, extent in zip(pads, kernel * 2, strict=True))
    ):
        return False
    # With ceil_mode the last window starts inside the image if it does not start behind what it steps over, nor in padding.
    return not ceil or (not any(pads) and all(step <= extent for step, extent in zip(strides, kernel, strict=True)))
