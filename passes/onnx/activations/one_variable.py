"""Grow, backwards from a value, the elementwise expressions of one variable that compute it.

Before (graph), asked for the value ``a``::

    s = Sign(x);  p = Clip(x, -1, 1);  d = Sub(s, p);  a = Add(d, p)
After (the only value from which all of ``a`` comes is x; further back there may be more such values)::

    Candidate(source=x, expression="Sign(x) - Clip(x) + Clip(x)", nodes=(the four))

The latest node is opened first, so a value that everything passes through is met on its own. Constants are numbers, whatever
their shape: one element, or all elements equal (``ones_like``, folded), or an Expand or ConstantOfShape to the shape of a
value of the expression. One vector is understood: a threshold T, one per channel, with which x is compared and nothing
else is done; the expression then is one of "below, at, above T" (step_function.prove_around).

Not handled: constants that would broadcast x to a larger shape, sources that are not float32, several outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.activations.elementwise import COMPARISONS, ELEMENT_TYPES, ELEMENTWISE
from bnn_deploy.passes.onnx.activations.expression import Expression, Operation
from bnn_deploy.passes.onnx.graph import constant_of, is_standard, producer_of, required_input

# Operators in one expression, beyond which it is not followed further back.
MOST_NODES = 64


@dataclass(frozen=True)
class Candidate:
    """A value's computation from one source.

    Attributes:
        source: the float32 value from which all comes.
        expression: what is done to it; where ``threshold`` is set, for step_function.prove_around.
        nodes: those of the expression, in graph order.
        threshold: the constant, one number per channel, with which the source is compared.
    """

    source: ir.Value
    expression: Expression
    nodes: tuple[ir.Node, ...]
    threshold: ir.Value | None = None


def positions(graph: ir.Graph) -> dict[ir.Node, int]:
    """Place of each node in the graph."""
    return {node: index for index, node in enumerate(graph)}


def candidates(value: ir.Value, order: dict[ir.Node, int]) -> Iterator[Candidate]:
    """The computations of ``value`` from one source each, nearest source first.

    Args:
        order: see ``positions``.
    """
    growth = _Growth(order)
    growth.open.add(value)
    while len(growth.nodes) < MOST_NODES:
        latest = max(growth.open, key=growth.place, default=None)
        if latest is None or not growth.expand(latest):
            return
        if len(growth.open) == 1:
            (source,) = growth.open
            candidate = growth.candidate(source, value)
            if candidate is not None:
                yield candidate


@dataclass
class _Growth:
    """An expression as far as it is known: its nodes and the values from which they are computed."""

    order: dict[ir.Node, int]
    nodes: list[ir.Node] = field(default_factory=list)
    open: set[ir.Value] = field(default_factory=set)
    numbers: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    # Constants that are Expand(c, Shape(value)): value must turn out to be part of the expression.
    shaped_like: list[ir.Value] = field(default_factory=list)
    # (constant vector, the value that is compared with it).
    thresholds: list[tuple[ir.Value, ir.Value]] = field(default_factory=list)

    def place(self, leaf: ir.Value) -> int:
        """Where in the graph ``leaf`` is made; -1 before all nodes."""
        node = leaf.producer()
        return -1 if node is None else self.order.get(node, -1)

    def expand(self, leaf: ir.Value) -> bool:
        """Put the operator that makes ``leaf`` in the expression; False if it is none that is understood."""
        node = leaf.producer()
        if not is_standard(node) or node not in self.order or leaf is not node.outputs[0]:
            return False
        if node.op_type not in (*ELEMENTWISE, "Cast", "Pow") or len(node.outputs) != 1:
            return False
        if _cast_type(node) is None if node.op_type == "Cast" else bool(node.attributes):
            return False
        variables = []
        for operand in node.inputs:
            if operand is None:
                continue
            number = self._number(operand)
            if number is not None:
                self.numbers[operand] = number
            elif constant_of(operand) is None:
                variables.append(operand)
            elif node.op_type in COMPARISONS and _is_vector(operand):
                others = [other for other in node.inputs if other is not None and other is not operand]
                self.thresholds.append((operand, others[0] if others else operand))
            else:
                return False
        if node.op_type == "Pow" and not (len(variables) == 1 and self._is_square(node)):
            return False
        self.nodes.append(node)
        self.open.discard(leaf)
        self.open.update(variables)
        return True

    def candidate(self, source: ir.Value, value: ir.Value) -> Candidate | None:
        """The expression as a function of ``source``, if it is a float32 of the shape of ``value``."""
        if source.dtype != ir.DataType.FLOAT or source.shape is None:
            return None
        members = {source, *(node.outputs[0] for node in self.nodes)}
        shapes = [array.shape for array in self.numbers.values()]
        vectors = [vector for vector, _ in self.thresholds]
        threshold = vectors[0] if vectors else None
        if threshold is not None and not self._only_compared(source, threshold):
            return None
        shapes += [_array(vector).shape for vector in vectors[:1]]
        if not all(value in members for value in self.shaped_like) or not _within(shapes, source.shape):
            return None
        nodes = tuple(sorted(self.nodes, key=self.order.__getitem__))
        return Candidate(source, self._expression(source, nodes), nodes, threshold)

    def _only_compared(self, source: ir.Value, threshold: ir.Value) -> bool:
        """Whether the source is read by comparisons with one threshold and by nothing else."""
        expected, compared = _array(threshold), 0
        for vector, other in self.thresholds:
            array = _array(vector)
            if other is not source or array.shape != expected.shape or not np.array_equal(array, expected):
                return False
            compared += 1
        return compared == sum(node.inputs.count(source) for node in self.nodes)

    def _expression(self, source: ir.Value, nodes: tuple[ir.Node, ...]) -> Expression:
        places: dict[ir.Value, int] = {source: 0}
        constants: list[tuple[str, bytes]] = []
        zero = (np.dtype(np.float32).name, np.float32(0).tobytes())
        for constant in [*self.numbers, *(vector for vector, _ in self.thresholds)]:
            number = self.numbers.get(constant)
            first = None if number is None else (number.dtype.name, number.reshape(-1)[:1].tobytes())
            constants.append(first or zero)
            places[constant] = len(constants)
        operations = []
        for node in nodes:
            operands = tuple(None if operand is None else places[operand] for operand in node.inputs)
            if node.op_type == "Pow":
                operations.append(Operation("Mul", (operands[0], operands[0])))
            else:
                operations.append(Operation(node.op_type, operands, _cast_type(node) or ""))
            places[node.outputs[0]] = len(constants) + len(operations)
        return Expression(tuple(constants), tuple(operations))

    def _number(self, value: ir.Value) -> np.ndarray | None:
        """The constant, if all its elements are one number."""
        array, node = constant_of(value), value.producer()
        if array is None and is_standard(node, "Expand", "ConstantOfShape"):
            shape = producer_of(node.inputs[0 if node.op_type == "ConstantOfShape" else 1])
            if not is_standard(shape, "Shape") or shape.attributes:
                return None
            self.shaped_like.append(required_input(shape))
            filler = node.attributes.get("value")
            if node.op_type == "Expand":
                array = constant_of(node.inputs[0])
            else:
                array = np.zeros(1, np.float32) if filler is None else filler.as_tensor().numpy()
            # Its shape is that of the value; only the number counts.
            array = array.reshape(-1)[0] if array is not None and array.size == 1 else None
        if array is None or array.size == 0 or array.dtype.name not in ELEMENT_TYPES:
            return None
        array = np.asarray(array)
        return array if bool((array == array.reshape(-1)[0]).all()) else None

    def _is_square(self, node: ir.Node) -> bool:
        """Whether a Pow is x ** 2, which runtimes compute as x * x."""
        power = self.numbers.get(node.inputs[1]) if node.inputs[1] is not None else None
        return power is not None and float(power.reshape(-1)[0]) == 2.0 and node.inputs[0] not in self.numbers


def _array(value: ir.Value) -> np.ndarray:
    array = constant_of(value)
    assert array is not None
    return array


def _is_vector(value: ir.Value) -> bool:
    """Whether a constant can be a threshold per channel."""
    array = _array(value)
    return array.dtype == np.float32 and array.size > 1 and bool(np.isfinite(array).all())


def _cast_type(node: ir.Node) -> str | None:
    """Element type that a Cast makes, None for one that is not followed."""
    target = node.attributes.get("to")
    if node.op_type != "Cast" or target is None:
        return None
    try:
        name = ir.DataType(target.as_int()).numpy().name
    except (TypeError, ValueError):
        return None
    return name if name in ELEMENT_TYPES else None


def _within(shapes: list[tuple[int, ...]], shape: ir.Shape) -> bool:
    """Whether constants of these shapes broadcast to ``shape`` and leave it as it is."""
    for constant in shapes:
        if len(constant) > len(shape):
            return False
        for size, whole in zip(reversed(constant), reversed(list(shape)), strict=False):
            if size != 1 and size != whole:
                return False
    return True
