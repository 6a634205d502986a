"""Interval arithmetic of ONNX's elementwise operators, in the operators' own element types.

An ``Interval`` bounds a value for every x of a range at once. float32 (and float16, float64) arithmetic rounds to nearest,
and rounding to nearest is monotone; so is, in each argument where the other is held, every operator here between the
points at which its direction turns. The smallest and largest result over a box of arguments therefore appear at its
corners, computed with the operator's own rounding: the bounds need no outward rounding, and an interval of one number
gives exactly what the graph computes.

Zeros: +0.0 and -0.0 count as one number. The only operator here that tells them apart is a division by them, which is
treated as undefined.

Not handled: Tanh, Exp, Sqrt and the like, whose last bit differs between runtimes; integer division; bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"})
ELEMENT_TYPES = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float16", "float32", "float64"}
)
# Integer operands beyond this are not followed: their products would leave int64, in which integers are computed here.
_INTEGER_LIMIT = 2**31


@dataclass(frozen=True)
class Interval:
    """Bounds of a value; entry i of each array speaks of the i-th range of x.

    Attributes:
        low, high: smallest and largest value, of the value's element type.
        undefined: bool; True where the value may be NaN or out of its type's range, so that the bounds say nothing.
    """

    low: np.ndarray
    high: np.ndarray
    undefined: NDArray[np.bool_]

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Where the value is known: one number for the whole range."""
        known: NDArray[np.bool_] = (self.low == self.high) & ~self.undefined
        return known

    @property
    def dtype(self) -> np.dtype:
        """Element type of the value."""
        return self.low.dtype

    def holds_zero(self) -> NDArray[np.bool_]:
        """Where the value may be 0."""
        maybe: NDArray[np.bool_] = ((self.low <= 0) & (self.high >= 0)) | self.undefined
        return maybe


def interval(low: np.ndarray, high: np.ndarray, undefined: np.ndarray | bool = False) -> Interval:
    """The interval of these bounds; a bound that is NaN makes it undefined."""
    unknown = np.broadcast_to(undefined, low.shape) | (low != low) | (high != high)
    if low.dtype.kind == "f":
        low, high = np.where(unknown, low.dtype.type(-np.inf), low), np.where(unknown, low.dtype.type(np.inf), high)
    return Interval(low, high, unknown)


def _fitted(low: np.ndarray, high: np.ndarray, dtype: np.dtype, undefined: np.ndarray) -> Interval:
    """Results back in their element type; an integer that does not fit is undefined (it would wrap around)."""
    if dtype.kind == "f":
        return interval(low, high, undefined)
    limits = np.iinfo(dtype)
    unknown = undefined | (low < limits.min) | (high > limits.max)
    return Interval(np.where(unknown, 0, low).astype(dtype), np.where(unknown, 0, high).astype(dtype), unknown)


def _wide(value: Interval) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds in which to compute: floats as they are, integers as int64."""
    if value.dtype.kind == "f":
        return value.low, value.high, value.undefined
    low, high = value.low.astype(np.int64), value.high.astype(np.int64)
    return low, high, value.undefined | (low < -_INTEGER_LIMIT) | (high > _INTEGER_LIMIT)


def _monotone(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Interval], Interval]:
    return lambda a: _fitted(function(a.low), function(a.high), a.dtype, a.undefined)


def negative(a: Interval) -> Interval:
    """``-a``."""
    low, high, undefined = _wide(a)
    return _fitted(-high, -low, a.dtype, undefined)


def absolute(a: Interval) -> Interval:
    """``|a|``."""
    low, high, undefined = _wide(a)
    ends = np.abs(low), np.abs(high)
    smallest = np.where(a.holds_zero(), low.dtype.type(0), np.minimum(*ends))
    return _fitted(smallest, np.maximum(*ends), a.dtype, undefined)


def square(a: Interval) -> Interval:
    """``a * a`` of one value, which is never negative."""
    return multiply(absolute(a), absolute(a))


def add(a: Interval, b: Interval) -> Interval:
    """``a + b``."""
    (a_low, a_high, a_unknown), (b_low, b_high, b_unknown) = _wide(a), _wide(b)
    # inf - inf: may happen between the corners, too.
    clash = (np.isposinf(a_high) & np.isneginf(b_low)) | (np.isneginf(a_low) & np.isposinf(b_high))
    return _fitted(a_low + b_low, a_high + b_high, a.dtype, a_unknown | b_unknown | clash)


def subtract(a: Interval, b: Interval) -> Interval:
    """``a - b``; negation is exact, so this is ``a + (-b)``, but for unsigned integers, which have no negatives."""
    if a.dtype.kind == "u":
        (a_low, a_high, a_unknown), (b_low, b_high, b_unknown) = _wide(a), _wide(b)
        return _fitted(a_low - b_high, a_high - b_low, a.dtype, a_unknown | b_unknown)
    return add(a, negative(b))


def _corners(function: Callable[..., np.ndarray], a: Interval, b: Interval, undefined: np.ndarray) -> Interval:
    (a_low, a_high, a_unknown), (b_low, b_high, b_unknown) = _wide(a), _wide(b)
    corners = [function(one, other) for one in (a_low, a_high) for other in (b_low, b_high)]
    low, high = reduce(np.minimum, corners), reduce(np.maximum, corners)
    return _fitted(low, high, a.dtype, a_unknown | b_unknown | undefined)


def multiply(a: Interval, b: Interval) -> Interval:
    """``a * b``; 0 * inf is undefined."""
    infinite = [np.isinf(value.low) | np.isinf(value.high) for value in (a, b)]
    return _corners(np.multiply, a, b, (a.holds_zero() & infinite[1]) | (b.holds_zero() & infinite[0]))


def divide(a: Interval, b: Interval) -> Interval:
    """``a / b`` of floats; undefined where b may be 0, and for integers."""
    infinite = [np.isinf(value.low) | np.isinf(value.high) for value in (a, b)]
    unknown = b.holds_zero() | (infinite[0] & infinite[1]) | np.bool_(a.dtype.kind != "f")
    return _corners(np.divide, a, b, unknown)


def minimum(*values: Interval) -> Interval:
    """The smallest of the values."""
    return reduce(_between(np.minimum), values)


def maximum(*values: Interval) -> Interval:
    """The largest of the values."""
    return reduce(_between(np.maximum), values)


def _between(function: Callable[..., np.ndarray]) -> Callable[[Interval, Interval], Interval]:
    return lambda a, b: interval(function(a.low, b.low), function(a.high, b.high), a.undefined | b.undefined)


def clip(a: Interval, low: Interval | None = None, high: Interval | None = None) -> Interval:
    """``min(max(a, low), high)``; a bound that is None is absent."""
    raised = a if low is None else maximum(a, low)
    return raised if high is None else minimum(raised, high)


def _truth(low: np.ndarray, high: np.ndarray, undefined: np.ndarray) -> Interval:
    """A bool: low says where it is surely True, high where it may be. Any comparison answers, whatever it compares."""
    return Interval(low & ~undefined, high | undefined, np.zeros_like(undefined))


def greater(a: Interval, b: Interval) -> Interval:
    """``a > b``."""
    return _truth(a.low > b.high, a.high > b.low, a.undefined | b.undefined)


def greater_or_equal(a: Interval, b: Interval) -> Interval:
    """``a >= b``."""
    return _truth(a.low >= b.high, a.high >= b.low, a.undefined | b.undefined)


def equal(a: Interval, b: Interval) -> Interval:
    """``a == b``."""
    both = a.exact & b.exact & (a.low == b.low)
    return _truth(both, (a.low <= b.high) & (b.low <= a.high), a.undefined | b.undefined)


def exclusive_or(a: Interval, b: Interval) -> Interval:
    """``a xor b`` of bools."""
    known, answer = a.exact & b.exact, a.low ^ b.low
    return _truth(known & answer, ~known | answer, np.zeros_like(known))


def where(condition: Interval, a: Interval, b: Interval) -> Interval:
    """``a`` where the condition is True, else ``b``; either, where it may be both."""
    yes, no = condition.low, ~condition.high
    low = np.where(yes, a.low, np.where(no, b.low, np.minimum(a.low, b.low)))
    high = np.where(yes, a.high, np.where(no, b.high, np.maximum(a.high, b.high)))
    undefined = np.where(yes, a.undefined, np.where(no, b.undefined, a.undefined | b.undefined))
    return Interval(low, high, undefined)


def cast(a: Interval, target: np.dtype) -> Interval:
    """ONNX's Cast: to bool, whether it is not 0; a float to an integer, towards 0 (undefined where it does not fit)."""
    if target.kind == "b":
        if a.dtype.kind == "b":
            return a
        return _truth(~a.holds_zero(), (a.low != 0) | (a.high != 0), a.undefined)
    if a.dtype.kind == "b" or target.kind == "f":
        return interval(a.low.astype(target), a.high.astype(target), a.undefined)
    if a.dtype.kind == "f":
        unknown = a.undefined | (np.maximum(np.abs(a.low), np.abs(a.high)) >= _INTEGER_LIMIT)
        low, high = (np.where(unknown, 0, np.trunc(end)).astype(np.int64) for end in (a.low, a.high))
        return _fitted(low, high, target, unknown)
    low, high, unknown = _wide(a)
    return _fitted(low, high, target, unknown)


# Operator -> its meaning on as many intervals as it has inputs (None for an input that is left out). Cast stands apart.
ELEMENTWISE: dict[str, Callable[..., Interval]] = {
    "Abs": absolute,
    "Add": add,
    "And": lambda a, b: _truth(a.low & b.low, a.high & b.high, a.undefined),
    "Ceil": _monotone(np.ceil),
    "Clip": clip,
    "Div": divide,
    "Equal": equal,
    "Floor": _monotone(np.floor),
    "Greater": greater,
    "GreaterOrEqual": greater_or_equal,
    "Less": lambda a, b: greater(b, a),
    "LessOrEqual": lambda a, b: greater_or_equal(b, a),
    "Max": maximum,
    "Min": minimum,
    "Mul": multiply,
    "Neg": negative,
    "Not": lambda a: _truth(~a.high, ~a.low, a.undefined),
    "Or": lambda a, b: _truth(a.low | b.low, a.high | b.high, a.undefined),
    "Relu": _monotone(lambda a: np.maximum(a, a.dtype.type(0))),
    "Round": _monotone(np.rint),
    "Sign": _monotone(np.sign),
    "Sub": subtract,
    "Where": where,
    "Xor": exclusive_or,
}
_OF_ONE_TYPE = frozenset({"Add", "Clip", "Div", "Max", "Min", "Mul", "Sub"}) | COMPARISONS


def apply(operator: str, operands: Sequence[Interval | None]) -> Interval:
    """One of ``ELEMENTWISE`` on intervals of equal length.

    Raises:
        ValueError: the operands do not have one element type, or not one that the operator takes.
    """
    present = [operand for operand in operands if operand is not None]
    if operator == "Where":
        if present[0].dtype.kind != "b" or present[1].dtype != present[2].dtype:
            raise ValueError("Where of operands whose element types do not fit")
    elif operator in _OF_ONE_TYPE and len({operand.dtype for operand in present}) > 1:
        raise ValueError(f"{operator} of different element types")
    elif (operator in ("And", "Or", "Xor", "Not")) != (present[0].dtype.kind == "b") and operator != "Equal":
        raise ValueError(f"{operator} of element type {present[0].dtype}")
    with np.errstate(all="ignore"):
        return ELEMENTWISE[operator](*operands)
