"""Small questions that rules ask of an ``onnx_ir`` graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT, STANDARD_DOMAINS
from bnn_deploy.ops.registry import DOMAIN, is_activation


def is_standard(node: ir.Node | None, *types: str) -> TypeGuard[ir.Node]:
    """Whether ``node`` is one of these operators of standard ONNX; with no ``types``, any."""
    return node is not None and node.domain in STANDARD_DOMAINS and (not types or node.op_type in types)


def is_binary(node: ir.Node | None, *types: str) -> TypeGuard[ir.Node]:
    """Whether ``node`` is one of these operators of the domain ``bnn_deploy``."""
    return node is not None and node.domain == DOMAIN and node.op_type in types


def is_binary_activation(node: ir.Node | None) -> TypeGuard[ir.Node]:
    """Whether ``node`` is an activation of the domain ``bnn_deploy``."""
    return node is not None and is_activation(node)


def required_input(node: ir.Node, index: int = 0) -> ir.Value:
    """An input that the operator cannot do without: onnx's checker has seen to it before any rule runs."""
    value = node.inputs[index]
    assert value is not None, f"{node.op_type} '{layer_name(node)}' lacks input {index}"
    return value


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """An input that the operator can do without; None if it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def producer_of(value: ir.Value | None) -> ir.Node | None:
    """The node that computes ``value``; None for an input, a constant, and an input left out."""
    return None if value is None else value.producer()


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or Constant node, None for anything computed."""
    if value is None:
        return None
    tensor = value.const_value
    if tensor is None and is_standard(value.producer(), "Constant"):
        tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def optional_constant(node: ir.Node, index: int, default: np.ndarray) -> np.ndarray | None:
    """The array of an input that the operator can do without: ``default`` if it is left out, None if it is computed."""
    value = optional_input(node, index)
    return default if value is None else constant_of(value)


def integers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute that holds several integers."""
    return list(node.attributes.get_ints(name, default))


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
    pending, seen = [value], set[ir.Value]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        node = current.producer()
        if is_standard(node) and node.op_type in operators:
            pending.extend(moved_inputs(node))
        else:
            yield current


def ancestors(value: ir.Value) -> Iterator[ir.Value]:
    """``value`` and everything that it is computed from, nearest first."""
    pending, seen = [value], {value}
    for current in pending:
        yield current
        producer = current.producer()
        for item in () if producer is None else producer.inputs:
            if item is not None and item not in seen:
                seen.add(item)
                pending.append(item)


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
    """Every reader of ``old`` reads ``new``, and so does the graph's output, which keeps its name; dead nodes are removed later.

    A value that has to keep a name of its own (an input, a constant, another output) becomes an output by an Identity.
    """
    for reader, index in list(old.uses()):
        reader.replace_input_with(index, new)
    if not old.is_graph_output():
        return
    graph, name, maker = old.graph, old.name, old.producer()
    assert isinstance(graph, ir.Graph)
    if new.producer() is None or new.is_graph_output() or new.graph is not graph:
        if is_standard(maker, "Identity") and maker.inputs[0] is new:
            return
        identity = ir.node("Identity", [new], name=None if maker is None else maker.name)
        identity.outputs[0].type, identity.outputs[0].shape = old.type or new.type, old.shape or new.shape
        if maker is None:
            graph.append(identity)
        else:
            identity.metadata_props.update(maker.metadata_props)
            graph.insert_before(maker, identity)
        new = identity.outputs[0]
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new
    old.name, new.name = f"{name}/replaced", name


def layer_name(node: ir.Node) -> str:
    """How reports name a node: its own name, else that of its first output."""
    return node.name or str(node.outputs[0].name)
