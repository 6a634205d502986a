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

from bnn_deploy.passes.onnx.graph import is_standard, new_constant, replace_value

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
        elif is_standard(node, *_UNARY) and _expand_of(node.inputs[0]) is not None:
            _expand_afterwards(graph, node)
        elif is_standard(node, *_BROADCASTING):
            _read_before_expand(node)


def _expand_of(value: ir.Value | None) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if is_standard(node, "Expand") else None


def _as_expand(graph: ir.Graph, node: ir.Node) -> None:
    """ConstantOfShape(shape) is Expand(number, shape)."""
    fill = node.attributes["value"].as_tensor().numpy().reshape(()) if "value" in node.attributes else np.float32(0)
    number = new_constant(graph, f"{node.outputs[0].name}_fill", np.asarray(fill))
    _replace(graph, node, ir.node("Expand", [number, node.inputs[0]], name=node.name))


def _expand_afterwards(graph: ir.Graph, node: ir.Node) -> None:
    """f(Expand(c, shape)) is Expand(f(c), shape)."""
    expand = node.inputs[0].producer()  # type: ignore[union-attr]
    assert expand is not None and expand.inputs[0] is not None
    small = ir.node(node.op_type, [expand.inputs[0]], dict(node.attributes), name=f"{node.name}_before_expand")
    small.outputs[0].name = f"{node.outputs[0].name}_before_expand"
    small.outputs[0].type, small.outputs[0].shape = node.outputs[0].type, expand.inputs[0].shape
    graph.insert_before(node, small)
    _replace(graph, node, ir.node("Expand", [small.outputs[0], expand.inputs[1]], name=node.name))


def _replace(graph: ir.Graph, node: ir.Node, new: ir.Node) -> None:
    new.metadata_props.update(node.metadata_props)
    new.outputs[0].name = f"{node.outputs[0].name}_expanded"
    new.outputs[0].type, new.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    graph.insert_before(node, new)
    replace_value(node.outputs[0], new.outputs[0])


def _read_before_expand(node: ir.Node) -> None:
    partners = [value for value in node.inputs if value is not None and _expand_of(value) is None]
    for index, value in enumerate(node.inputs):
        expand = _expand_of(value)
        if expand is not None and any(_has_shape_of(expand, partner) for partner in partners):
            node.replace_input_with(index, expand.inputs[0])


def _has_shape_of(expand: ir.Node, partner: ir.Value) -> bool:
    """Whether ``partner`` has the shape that the Expand makes, so that broadcasting to it does the same."""
    shape = expand.inputs[1]
    source = None if shape is None else shape.producer()
    if source is not None and is_standard(source, "Shape") and source.inputs[0] is partner:
        return "start" not in source.attributes and "end" not in source.attributes
    made, wanted = expand.outputs[0].shape, partner.shape
    if made is None or wanted is None or len(made) != len(wanted):
        return False
    # A symbolic extent is known by its name only; an anonymous one is never known to be equal.
    return all(
        one == other and (isinstance(one, int) or one.value is not None)
        for one, other in zip(made, wanted, strict=True)
    )
