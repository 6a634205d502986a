"""Put an activation behind an operator that keeps its values apart: moved there, or written once more.

Before::

    u = Add(Mul(Sign(x, t), 0.5), 0.5);  y = P(u)           P: MaxPool, or Pad with 0 or 1
After, moved::

    y = Add(Mul(Sign(P(x), t), 0.5), 0.5)
After, written once more (where u is a Concat, say)::

    y = Add(Mul(Sign(P(u), 0.5), 0.5), 0.5)

Which of the two is right for P, and exact, is for the rules to say: ``hoist_pooling``, ``fold_padding``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT, LAYERS
from bnn_deploy.passes.onnx.graph import is_binary_activation, is_standard, moved_inputs, producer_of, static_shape
from bnn_deploy.passes.onnx.layers.binary_values import SCALAR_ARITHMETIC, BinaryFacts, BinaryValues, scalar_operand
from bnn_deploy.passes.onnx.node_writer import NodeWriter


@dataclass(frozen=True)
class Chain:
    """An activation with nothing but arithmetic after it, first to last."""

    activation: ir.Node
    arithmetic: tuple[ir.Node, ...]


def chain_of(value: ir.Value) -> Chain | None:
    """The chain that ends in ``value``; None if data are moved on the way."""
    arithmetic: list[ir.Node] = []
    node = value.producer()
    while node is not None and (operand := scalar_operand(node)) is not None:
        arithmetic.append(node)
        node = producer_of(node.inputs[operand])
    return Chain(node, tuple(reversed(arithmetic))) if is_binary_activation(node) else None


def write_chain(writer: NodeWriter, chain: Chain, source: ir.Value, facts: BinaryFacts) -> ir.Value:
    """The same activation and arithmetic, now of ``source``, under their own names."""
    value = source
    for node in (chain.activation, *chain.arithmetic):
        operand = scalar_operand(node) or 0
        inputs = [value if index == operand else other for index, other in enumerate(node.inputs)]
        copy = writer.copy(node, inputs, shape=source.shape)
        facts.visit(copy)
        value = copy.outputs[0]
    return value


def write_again(
    writer: NodeWriter, value: ir.Value, values: BinaryValues, name: str, facts: BinaryFacts
) -> ir.Value | None:
    """An activation that gives ``value``, which already holds these values, back as it is; None if it cannot.

    Args:
        writer: of the node to replace.
        value: holds exactly the numbers of ``values``.
        values: with ``three``, the offset must be 0.
        name: of the activation.
        facts: told of the new nodes.
    """
    scale, offset = np.float32(abs(values.scale)), np.float32(values.offset)
    low, high = sorted((np.float32(values.low), np.float32(values.high)))
    signs = np.array([-1, 0, 1], np.float32)
    expected = np.array([low, np.float32(values.middle), high])
    with np.errstate(all="ignore"):
        found = signs * scale + offset
        inverse = np.float32(1) / scale
        apart = np.isfinite(inverse) and np.all(np.abs(expected * inverse - signs) < 0.25)
    if values.three:
        if offset != 0 or not apart or not np.array_equal(found, expected):
            return None
        scaled = value
        if scale != 1:
            scaled = writer.write("Mul", [value, writer.constant(f"{name}/inverse", inverse)], shape=value.shape)
        last = writer.write_node("Ternary", [scaled], shape=value.shape, ours=True, name=name)
    else:
        if not np.array_equal(found[[0, 2]], expected[[0, 2]]) or not low <= offset < high:
            return None
        threshold = writer.constant(f"{name}/threshold", offset)
        last = writer.write_node("Sign", [value, threshold], {"zero": -1}, value.shape, ours=True, name=name)
    facts.visit(last)
    for operator, number, neutral in (("Mul", scale, 1), ("Add", offset, 0)):
        if number != neutral:
            operands = [last.outputs[0], writer.constant(f"{name}/{operator}", number)]
            last = writer.write_node(operator, operands, shape=value.shape)
            facts.visit(last)
    return last.outputs[0]


def keeps_threshold(activation: ir.Node, axes: set[int], rank: int) -> bool:
    """Whether the threshold of a Sign is the same all along ``axes`` (counted from the front) of a tensor of ``rank``."""
    if activation.op_type == "Ternary":
        return True
    shape = static_shape(activation.inputs[1])
    if shape is None or len(shape) > rank:
        return False
    aligned = (1,) * (rank - len(shape)) + shape
    return all(aligned[axis] == 1 for axis in axes)


def feeds_layer(value: ir.Value) -> bool:
    """Whether a layer reads ``value``, or what is left of it after data movement, arithmetic, MaxPool and Pad."""
    passing = DATA_MOVEMENT | set(SCALAR_ARITHMETIC) | {"MaxPool", "Pad"}
    pending, seen = [value], set[ir.Value]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for node, _ in current.uses():
            if is_standard(node, *LAYERS):
                return True
            if is_standard(node, *passing) and (node.op_type not in DATA_MOVEMENT or current in moved_inputs(node)):
                pending.extend(node.outputs)
    return False
