"""An elementwise expression of one float32 value, and bounds of what it computes.

Before::

    x from 2 to 3
After, by ``evaluate(Sub(Sign(x), Clip(x, -1, 1)), x)``::

    from 0 to 0

Interval arithmetic (elementwise.py) bounds one operator after the other. It forgets that c is the same c twice, so that
straight-through estimators need a lemma. For float32 s and c::

    (s - c) + c == s  exactly, if s is 0, or if s = ±2**k, -100 <= k <= 100, c is 0 or has the sign of s, |c| <= 2**(k + 24)

Proof. s = 0: -c and -c + c are exact. Else let s = 2**k (the other sign mirrors it) and 0 <= c.
If c <= s: 0 <= s - c <= 2**k, where floats are at most 2**(k - 24) apart, so the rounded difference is r = s - c + e with
|e| <= 2**(k - 25). r + c is 2**k + e before it is rounded; 2**k's neighbours are 2**(k - 24) below and 2**(k - 23) above, so e
is at most half a step, and the one tie, below, goes to 2**k, whose last bit is even.
If c > s: the last bit of c is worth at most 2**k (c = 2**(k + 24) itself is a multiple of it, too), so s - c is a multiple of
that bit, not larger than c, hence a float: the difference is exact, and so is the sum.
``c + (s - c)`` is the same sum, and ``c - (c - s)`` is it after an exact change of sign.

Not handled: expressions whose terms cancel in other ways, such as ``(a * Sign(x) - c) + c`` where a is no power of two
(there the graph's value does wobble by a rounding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnn_deploy.passes.onnx.activations.elementwise import Interval, apply, cast, square


@dataclass(frozen=True)
class Operation:
    """One operator of an expression.

    Attributes:
        operator: ONNX operator type.
        operands: what it reads: 0 is x, then come the constants, then the operations; None for an input left out.
        target: element type that a Cast makes.
    """

    operator: str
    operands: tuple[int | None, ...]
    target: str = ""


@dataclass(frozen=True)
class Expression:
    """A function of one float32 x, the result of its last operation. Constants are (element type, bytes) of one number."""

    constants: tuple[tuple[str, bytes], ...]
    operations: tuple[Operation, ...]

    def constant_values(self) -> list[np.ndarray]:
        """The constants as arrays of one element."""
        return [np.frombuffer(data, np.dtype(kind)) for kind, data in self.constants]


def evaluate(expression: Expression, x: Interval) -> Interval:
    """Bounds of ``expression`` for each range of x.

    Raises:
        ValueError: the element types of an operator's operands do not fit.
    """
    values: list[Interval] = [x]
    for constant in expression.constant_values():
        spread = np.broadcast_to(constant, x.low.shape)
        values.append(Interval(spread, spread, np.isnan(spread) if constant.dtype.kind == "f" else spread != spread))
    first = len(values)
    for operation in expression.operations:
        operands = [None if index is None else values[index] for index in operation.operands]
        if operation.operator == "Cast":
            assert operands[0] is not None
            with np.errstate(all="ignore"):
                values.append(cast(operands[0], np.dtype(operation.target)))
        elif operation.operator == "Mul" and operation.operands[0] == operation.operands[1]:
            assert operands[0] is not None
            with np.errstate(all="ignore"):
                values.append(square(operands[0]))
        else:
            values.append(apply(operation.operator, operands))
            cancelled = _cancelling(operation, expression.operations, first)
            if cancelled is not None:
                values[-1] = _cancel(values[-1], values[cancelled[0]], values[cancelled[1]])
    return values[-1]


def _cancelling(operation: Operation, operations: Sequence[Operation], first: int) -> tuple[int, int] | None:
    """(s, c) if this is ``(s - c) + c``, ``c + (s - c)`` or ``c - (c - s)``."""

    def difference(index: int | None) -> tuple[int | None, ...]:
        inner = operations[index - first] if index is not None and index >= first else None
        return inner.operands if inner is not None and inner.operator == "Sub" else (None, None)

    left, right = operation.operands if len(operation.operands) == 2 else (None, None)
    found: tuple[int | None, int | None] = (None, None)
    if operation.operator == "Add":
        pairs = [(difference(left), right), (difference(right), left)]
        found = next(((inner[0], c) for inner, c in pairs if c is not None and inner[1] == c), found)
    elif operation.operator == "Sub" and left is not None and difference(right)[0] == left:
        found = (difference(right)[1], left)
    s, c = found
    return None if s is None or c is None else (s, c)


def _cancel(bounds: Interval, s: Interval, c: Interval) -> Interval:
    """``bounds`` of ``(s - c) + c``, exact where the lemma above says so."""
    if s.dtype != np.float32:
        return bounds
    size = np.abs(s.low)
    fraction, _ = np.frexp(size)
    power = (fraction == 0.5) & (size >= 2.0**-100) & (size <= 2.0**100)
    same_side = np.where(s.low > 0, c.low >= 0, c.high <= 0)
    reach = np.where(power, size, np.float32(0)) * np.float32(2**24)
    small = np.maximum(np.abs(c.low), np.abs(c.high)) <= reach
    holds = (
        s.exact
        & ~c.undefined
        & ((power & same_side & small) | ((size == 0) & np.isfinite(c.low) & np.isfinite(c.high)))
    )
    return Interval(np.where(holds, s.low, bounds.low), np.where(holds, s.low, bounds.high), bounds.undefined & ~holds)
