"""Small questions that rules ask of an ``onnx_ir`` graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from bnn_deploy.ops.operator import DOMAIN

STANDARD_DOMAINS = ("", "ai.onnx")
# Operators whose output holds only values of their input: a -1/0/+1 tensor stays one.
DATA_MOVEMENT = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)


def is_standard(node: ir.Node | None, *types: str) -> bool:
    """Whether ``node`` is one of these operators of standard ONNX; with no ``types``, any."""
    return node is not None and node.domain in STANDARD_DOMAINS and (not types or node.op_type in types)


def is_binary(node: ir.Node | None, *types: str) -> bool:
    """Whether ``node`` is one of these operators of the domain ``bnn_deploy``."""
    return node is not None and node.domain == DOMAIN and node.op_type in types


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or Constant node, None for anything computed."""
    if value is None:
        return None
    tensor = value.const_value
    if tensor is None and is_standard(value.producer(), "Constant"):
        tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def static_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The extents that are known, None for a dynamic one; None where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def moved_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs of a DATA_MOVEMENT node whose elements appear in its output."""
    inputs = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    return [value for value in inputs if value is not None]


def sources_through(value: ir.Value, operators: frozenset[str] = DATA_MOVEMENT) -> Iterator[ir.Value]:
    """The values from which ``value`` is made by nothing but these standard operators; ``value`` itself if by none."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        node = current.producer()
        if is_standard(node) and node is not None and node.op_type in operators:
            pending.extend(moved_inputs(node))
        else:
            yield current


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer of ``graph``, under ``name`` or one made unique from it."""
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Every reader of ``old`` reads ``new``, and so does the graph's output; dead nodes are removed later."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def layer_name(node: ir.Node) -> str:
    """How reports name a node: its own name, else that of its first output."""
    return node.name or str(node.outputs[0].name)
