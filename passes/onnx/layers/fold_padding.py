"""Padding of an activation: into the convolution where it is zero, before the sign where it is a sign.

Before::

    (1) y = Conv(Pad(Sign(x), 0), w)                        (2) y = Conv(Pad(Sign(x, t), -1), w)
    (3) y = Conv(Pad(Sign(x), reflect), w)                  (4) y = Conv(u, w) {pads: 1}, u = Add(Mul(Sign(x, t), ½), ½)
After::

    (1) y = Conv(Sign(x), w) {pads: 1}                      (2) y = Conv(Sign(Pad(x, t - 1), t), w)
    (3) y = Conv(Sign(Pad(x, reflect)), w)                  (4) u = Add(Mul(Sign(Pad(x, t - 1), t), ½), ½), no pads

(1) is the definition of a convolution's padding, whatever the values are. (2) and (3): padding takes elements of x, or one
that lies on the right side of the threshold. (4): zero is one of the two values, and so the padding is a sign as well; a
binary convolution pads with neither. Where the signs were moved on the way (Concat), or padding adds a 0 to them outside of a
convolution, the padded values are again two or three numbers, and an activation is applied to them once more.

Where: after ``recognise_activations`` and ``hoist_pooling``; only before layers.
Not handled: padding with other numbers, by computed amounts, or by negative ones; ``recognise_layers`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    layer_name,
    optional_constant,
    optional_input,
    required_input,
    static_shape,
)
from bnn_deploy.passes.onnx.layers.binary_values import BinaryFacts, BinaryValues
from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights, judge_weights
from bnn_deploy.passes.onnx.layers.move_activation import (
    Chain,
    chain_of,
    feeds_layer,
    keeps_threshold,
    write_again,
    write_chain,
)
from bnn_deploy.passes.onnx.layers.read_convolution import padding_of, read_convolution
from bnn_deploy.passes.onnx.node_writer import NodeWriter


def fold_padding(graph: ir.Graph) -> None:
    """Change ``graph`` in place; nodes that nobody reads any more are left for the next clean-up."""
    graph.sort()
    facts = BinaryFacts()
    for node in list(graph):
        values = facts.of(node.inputs[0]) if node.inputs and is_standard(node, "Pad", "Conv") else None
        if isinstance(values, BinaryValues):
            if node.op_type == "Conv":
                _unfold(graph, node, values, facts)
            elif feeds_layer(node.outputs[0]) and _move(graph, node, values, facts):
                continue
        facts.visit(node)


def _move(graph: ir.Graph, node: ir.Node, values: BinaryValues, facts: BinaryFacts) -> bool:
    """Fold a Pad into the convolutions that read it, and move the activation behind it for all other readers."""
    amounts = _amounts(node)
    if amounts is None:
        return False
    filling = None
    if node.attributes.get_string("mode", "constant") == "constant":
        number = optional_constant(node, 2, np.zeros(1))
        if number is None or number.size != 1:
            return False
        filling = float(number.reshape(()))
    if filling == 0:  # {0, 1} too: see (4)
        for reader, index in list(node.outputs[0].uses()):
            if index == 0 and is_standard(reader, "Conv"):
                _fold(reader, required_input(node), amounts)
    if not feeds_layer(node.outputs[0]):
        return not node.outputs[0].uses() and not node.outputs[0].is_graph_output()
    writer = NodeWriter(graph, node)
    padded = _padded_activation(writer, values, filling, facts)
    if padded is not None:
        writer.replace(padded)
    return padded is not None


def _amounts(node: ir.Node) -> np.ndarray | None:
    """int64 (2, rank): what Pad adds before and after each axis, None if not known or negative."""
    pads, shape = constant_of(node.inputs[1]), static_shape(node.inputs[0])
    if pads is None or (shape is None and optional_input(node, 3) is not None):
        return None
    rank = pads.size // 2 if shape is None else len(shape)
    axes = optional_constant(node, 3, np.arange(rank))
    if rank == 0 or axes is None or pads.size != 2 * axes.size:
        return None
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, axes.reshape(-1) % rank] = pads.reshape(2, -1)
    return None if amounts.min(initial=0) < 0 else amounts


def _fold(convolution: ir.Node, value: ir.Value, amounts: np.ndarray) -> None:
    """Let ``convolution`` pad ``value`` itself, where it can."""
    kernel = [extent for extent in (static_shape(convolution.inputs[1]) or ())[2:] if extent is not None]
    if len(kernel) + 2 != amounts.shape[1] or amounts[:, :2].any():
        return
    own = padding_of(convolution, kernel)
    if isinstance(own, str):
        return
    convolution.replace_input_with(0, value)
    _set_pads(convolution, (amounts[:, 2:].reshape(-1) + np.array(own)).tolist())


def _unfold(graph: ir.Graph, node: ir.Node, values: BinaryValues, facts: BinaryFacts) -> None:
    """Pad the {0, a} input of a binary convolution before the activation: (4)."""
    if values.three or 0 not in (values.low, values.high):
        return
    form = read_convolution(node)
    if form.geometry is None or not any(form.geometry.pads) or form.reasons or form.weights is None:
        return
    if not isinstance(judge_weights(form.weights), BinaryWeights):
        return
    top, left, bottom, right = form.geometry.pads
    pads = np.array([[left], [right]] if form.geometry.flat else [[top, left], [bottom, right]], np.int64)
    writer, x = NodeWriter(graph, node), required_input(node)
    amounts = writer.constant(f"{writer.name}/pads", np.pad(pads, ((0, 0), (2, 0))).reshape(-1))
    shape = None
    if x.shape is not None:
        added = zip(x.shape[2:], pads.sum(axis=0).tolist(), strict=True)
        shape = [*x.shape[:2], *(size + more if isinstance(size, int) else None for size, more in added)]
    pad = writer.write_node("Pad", [x, amounts], shape=shape)
    padded = _padded_activation(NodeWriter(graph, pad), values, 0.0, facts)
    if padded is not None:
        node.replace_input_with(0, padded)
        _set_pads(node, [0] * pads.size)
    graph.remove(pad, safe=True)


def _padded_activation(
    writer: NodeWriter, values: BinaryValues, filling: float | None, facts: BinaryFacts
) -> ir.Value | None:
    """What a Pad makes of activations, as an activation; None if it is none.

    Args:
        writer: of the Pad.
        values: what it pads.
        filling: the number it pads with, None where it repeats elements.
        facts: told of the new nodes.
    """
    node, output = writer.old, writer.old.outputs[0]
    chain = chain_of(required_input(node))
    source = None if chain is None else _source_filling(chain, node, values, filling)
    if chain is not None and source is not None:
        inputs = [chain.activation.inputs[0], *node.inputs[1:]]
        if filling is not None:
            inputs = [*inputs[:2], writer.constant(f"{writer.name}/value", np.float32(source)), *inputs[3:]]
        padded = writer.copy(node, inputs, shape=output.shape)
        return write_chain(writer, chain, padded.outputs[0], facts)
    if filling is None or filling in (values.low, values.high) or (values.three and filling == values.middle):
        after = values
    elif filling == values.offset and not values.three:
        after = replace(values, three=True, middle=values.offset)
    else:
        return None
    padded = writer.copy(node, node.inputs, shape=output.shape)
    again = write_again(writer, padded.outputs[0], after, f"{layer_name(node)}/sign", facts)
    if again is None:
        writer.graph.remove(padded, safe=True)
    return again


def _source_filling(chain: Chain, node: ir.Node, values: BinaryValues, filling: float | None) -> float | None:
    """What to pad the activation's input with, so that ``filling`` comes out; None if nothing does for all channels.

    Where elements are repeated any number will do, as long as the threshold is the same all along the padded axes.
    """
    amounts = _amounts(node)
    if amounts is None:
        return None
    axes = set(np.flatnonzero(amounts.sum(axis=0)).tolist())
    if not keeps_threshold(chain.activation, axes, amounts.shape[1]):
        return None
    if filling is None:
        return 0.0
    wanted = {values.low: -1, values.high: 1, **({values.middle: 0} if values.three else {})}.get(filling)
    if wanted is None:
        return None
    if chain.activation.op_type == "Ternary":
        return float(wanted)
    thresholds = constant_of(chain.activation.inputs[1])
    if thresholds is None or thresholds.size == 0 or not np.isfinite(thresholds).all():
        return None
    lowest, highest = np.float32(thresholds.min()), np.float32(thresholds.max())
    if wanted == 0:
        return float(lowest) if lowest == highest else None
    beyond = highest + np.float32(1) if wanted == 1 else lowest - np.float32(1)
    # Beside a large threshold, one more is lost in rounding.
    return float(beyond) if (beyond > highest or beyond < lowest) and np.isfinite(beyond) else None


def _set_pads(convolution: ir.Node, pads: Sequence[int]) -> None:
    convolution.attributes["pads"] = ir.AttrInt64s("pads", list(pads))
    convolution.attributes.pop("auto_pad", None)
