"""Which values of a graph hold two or three known numbers: signs that were moved, scaled and shifted.

Before::

    s = Sign(x);  u = Mul(s, 0.5);  v = Add(u, 0.5);  r = Concat(v[1:], v[:1])
After::

    s: -1, +1     u: -0.5, +0.5     v: 0, 1     r: 0, 1

One walk over the graph in its order. A value that is made of such values but holds others gets words for the report.

Not handled: Concat of values of different kinds, which a binary layer cannot read; they get words too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT
from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_binary_activation,
    is_standard,
    layer_name,
    moved_inputs,
    static_shape,
)

# Elementwise operators of a value and one number, or of a value alone.
SCALAR_ARITHMETIC: dict[str, Callable[..., np.float32]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Neg": np.negative,
}
_AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum")


@dataclass(frozen=True)
class BinaryValues:
    """What a tensor holds where the activation behind it is -1, 0 (if ``three``) and +1.

    The numbers are those that the graph's own float32 arithmetic gives, so the tensor is ``scale * s + offset`` without any
    error, s being the activation and scale and offset float64.
    """

    three: bool
    low: float = -1.0
    middle: float = 0.0
    high: float = 1.0

    @property
    def scale(self) -> float:
        """a in a*s + b."""
        return (self.high - self.low) / 2

    @property
    def offset(self) -> float:
        """b in a*s + b."""
        return (self.high + self.low) / 2

    @property
    def words(self) -> str:
        """What the tensor holds, for the report."""
        if not self.three and (self.low, self.high) == (-1.0, 1.0):
            return "signs"
        numbers = sorted([self.low, *[self.middle] * self.three, self.high])
        count = "three" if self.three else "two"
        return f"{count} values ({', '.join(f'{number:+g}' if number else '0' for number in numbers)})"

    def applied(self, operator: str, number: np.ndarray | None, number_first: bool) -> BinaryValues | None:
        """After one operator of ``SCALAR_ARITHMETIC`` with ``number``; None when it is no scale and offset any more."""

        def compute(value: float) -> float:
            function = SCALAR_ARITHMETIC[operator]
            if number is None:
                return float(function(np.float32(value)))
            constant = np.float32(number.reshape(()))
            pair = (constant, np.float32(value)) if number_first else (np.float32(value), constant)
            return float(function(*pair))

        with np.errstate(all="ignore"):
            low, middle, high = (compute(value) for value in (self.low, self.middle, self.high))
        result = BinaryValues(self.three, low, middle if self.three else 0.0, high)
        usable = np.isfinite((low, high)).all() and low != high
        return result if usable and (not self.three or middle == result.offset) else None


class BinaryFacts:
    """What is known of the values of a graph, node by node in the graph's order.

    ``facts.of(value)`` is a BinaryValues, or words on a value that is made of binary ones but is none, or None.
    """

    def __init__(self, graph: ir.Graph | None = None) -> None:
        self._facts: dict[ir.Value, BinaryValues | str] = {}
        for node in graph or ():
            self.visit(node)

    def of(self, value: ir.Value | None) -> BinaryValues | str | None:
        """What ``value`` holds, None for real values and anything unknown."""
        return None if value is None else self._facts.get(value)

    def visit(self, node: ir.Node) -> None:
        """Learn what the outputs of ``node`` hold; its inputs have been visited."""
        fact = self._after(node)
        if fact is not None:
            for output in node.outputs:
                self._facts[output] = fact

    def _after(self, node: ir.Node) -> BinaryValues | str | None:
        if is_binary_activation(node):
            zero = node.attributes.get("zero")
            return BinaryValues(three=node.op_type == "Ternary" or (zero is not None and zero.as_int() == 0))
        if not is_standard(node):
            return None
        if node.op_type in DATA_MOVEMENT:
            return self._moved(node)
        fact = next((fact for value in node.inputs if (fact := self.of(value)) is not None), None)
        if fact is None:
            return None
        name = f"{node.op_type} '{layer_name(node)}'"
        words = fact if isinstance(fact, str) else fact.words
        if node.op_type in SCALAR_ARITHMETIC:
            return self._computed(node, words, name)
        if node.op_type in _AVERAGES:
            return f"sums or averages of {words} from {name}"
        return f"{words} that went through {name}" if node.op_type in ("MaxPool", "Pad", "Cast") else None

    def _moved(self, node: ir.Node) -> BinaryValues | str | None:
        facts = [self.of(value) for value in moved_inputs(node)]
        if len(set(facts)) <= 1:
            return facts[0] if facts else None
        words = [fact if isinstance(fact, str) else "other values" if fact is None else fact.words for fact in facts]
        return f"{' and '.join(dict.fromkeys(words))}, joined by {node.op_type} '{layer_name(node)}'"

    def _computed(self, node: ir.Node, words: str, name: str) -> BinaryValues | str | None:
        operand = scalar_operand(node)
        if operand is None:
            constants = [constant for value in node.inputs if (constant := constant_of(value)) is not None]
            if constants:
                return f"{words} with a vector of numbers applied by {name}"
            return f"{words} with computed values applied by {name}" if node.op_type in ("Mul", "Div") else None
        fact = self.of(node.inputs[operand])
        if not isinstance(fact, BinaryValues):
            return fact
        number = None if node.op_type == "Neg" else constant_of(node.inputs[1 - operand])
        result = fact.applied(node.op_type, number, number_first=operand == 1)
        return result if result is not None else f"{words} to which {name} does more than scale and shift"


def scalar_operand(node: ir.Node | None) -> int | None:
    """Which input of an operator of ``SCALAR_ARITHMETIC`` is the tensor, the other being one number that keeps its shape."""
    if not is_standard(node, *SCALAR_ARITHMETIC):
        return None
    if node.op_type == "Neg":
        return 0
    for index in (0, 1):
        constant, shape = constant_of(node.inputs[1 - index]), static_shape(node.inputs[index])
        if constant is None or constant.size != 1 or constant_of(node.inputs[index]) is not None:
            continue
        if constant.ndim == 0 or (shape is not None and constant.ndim <= len(shape)):
            return index
    return None
