"""Read a number, or one number per channel, instead of its repetition over a whole image: broadcasting repeats it anyway.

Before::

    y = Add(x, Expand(bias, Shape(x)));  z = Where(x >= 0, ones, Neg(ones)), ones = ConstantOfShape(Shape(x))
After::

    y = Add(x, bias);  z = Where(x >= 0, 1, -1)

PyTorch's ``bias.expand_as(x)`` and ``ones_like(x)`` become these; folded, the Expand would hold every pixel.
Where: before constants are folded.
Not handled: repetitions of which it is not known that another operand has the same shape, or that only meet each other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import is_standard, new_constant, producer_of, replace_value, required_input
from bnn_deploy.passes.onnx.node_writer import NodeWriter

_BROADCASTING = frozenset(
    {
        *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul"),
        *("Or", "Pow", "Sub", "Where", "Xor"),
    }
)
_UNARY = ("Abs", "Cast", "Neg", "Not", "Sign")


def drop_expand(graph: ir.Graph) -> None:
    """Change ``graph`` in place; nodes that nobody reads any more are left for the next clean-up."""
    for node in list(graph):
        if is_standard(node, "ConstantOfShape"):
            _as_expand(graph, node)
        elif is_standard(node, *_UNARY) and (expand := _expand_of(node.inputs[0])) is not None:
            _expand_afterwards(graph, node, expand)
        elif is_standard(node, *_BROADCASTING):
            _read_before_expand(node)


def _expand_of(value: ir.Value | None) -> ir.Node | None:
    node = producer_of(value)
    return node if is_standard(node, "Expand") else None


def _as_expand(graph: ir.Graph, node: ir.Node) -> None:
    """ConstantOfShape(shape) is Expand(number, shape)."""
    fill = node.attributes["value"].as_tensor().numpy().reshape(()) if "value" in node.attributes else np.float32(0)
    number = new_constant(graph, f"{node.outputs[0].name}_fill", np.asarray(fill))
    _replace(NodeWriter(graph, node), number, node.inputs[0])


def _expand_afterwards(graph: ir.Graph, node: ir.Node, expand: ir.Node) -> None:
    """f(Expand(c, shape)) is Expand(f(c), shape)."""
    writer, number = NodeWriter(graph, node), required_input(expand)
    small = writer.write(node.op_type, [number], node.attributes, number.shape)
    _replace(writer, small, expand.inputs[1])


def _replace(writer: NodeWriter, number: ir.Value, shape: ir.Value | None) -> None:
    old = writer.old.outputs[0]
    replace_value(old, writer.write("Expand", [number, shape], shape=old.shape, name=writer.old.name))


def _read_before_expand(node: ir.Node) -> None:
    partners = [value for value in node.inputs if value is not None and _expand_of(value) is None]
    for index, value in enumerate(node.inputs):
        expand = _expand_of(value)
        if expand is not None and any(_has_shape_of(expand, partner) for partner in partners):
            node.replace_input_with(index, expand.inputs[0])


def _has_shape_of(expand: ir.Node, partner: ir.Value) -> bool:
    """Whether ``partner`` has the shape that the Expand makes, so that broadcasting to it does the same."""
    source = producer_of(expand.inputs[1])
    if is_standard(source, "Shape") and source.inputs[0] is partner:
        return "start" not in source.attributes and "end" not in source.attributes
    made, wanted = expand.outputs[0].shape, partner.shape
    if made is None or wanted is None or len(made) != len(wanted):
        return False
    # A symbolic extent is known by its name only; an anonymous one is never known to be equal.
    return all(
        one == other and (isinstance(one, int) or one.value is not None)
        for one, other in zip(made, wanted, strict=True)
    )
