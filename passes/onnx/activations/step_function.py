"""Proof that an elementwise expression of one float32 value takes few values, each on a range of x.

Before::

    Add(Sub(Sign(x), Clip(x, -1, 1)), Clip(x, -1, 1))
After::

    StepFunction(values=(-1, 0, 1), ends=(-1e-45, 0))    # -1 up to the float below 0, 0 at 0, else 1

The claim is about the graph's own float32 arithmetic, for every float x with ``|x| <= LIMIT`` = 2**24 (beyond it, and for
infinities, ``everywhere`` says whether it still holds; NaN is never claimed). All floats are cut into ranges; interval arithmetic
(expression.py) bounds the expression on each; a range on which it is not known is cut further, in the end down to single
floats, on which intervals are exact. -0.0 and 0.0 are one point.

Not handled: NaN, and what ``expression.evaluate`` cannot bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.passes.onnx.activations.elementwise import Interval
from bnn_deploy.passes.onnx.activations.expression import Expression, evaluate

LIMIT = np.float32(2**24)
# Ranges evaluated before a proof is given up; a range costs about a microsecond per operator.
_BUDGET = 200_000
# An expression of more values than this, on the first ranges' ends, is called real-valued.
_MOST_VALUES = 256
_PIECES = 8


@dataclass(frozen=True)
class StepFunction:
    """A function of float32 that is constant on each of a few ranges.

    Attributes:
        values: on each range, from the lowest x to the highest; neighbours differ.
        ends: the largest float of each range but the last; zeros are +0.0.
        everywhere: whether the outermost values also hold beyond ``LIMIT`` and at infinities.
    """

    values: tuple[float, ...]
    ends: tuple[float, ...]
    everywhere: bool


@dataclass(frozen=True)
class Unproved:
    """Why an expression was not proved to be a step function, as the end of a sentence about it."""

    reason: str


def prove(expression: Expression) -> StepFunction | Unproved:
    """The step function that ``expression`` is for every float x with |x| <= LIMIT, or why it is not known to be one."""
    try:
        return _prove(expression)
    except ValueError as error:
        return Unproved(f"holds {error}")


@lru_cache(maxsize=1024)
def _prove(expression: Expression) -> StepFunction | Unproved:
    starts = _first_ranges(expression)
    ends = np.append(starts[1:] - 1, _ordinal(LIMIT))
    sample = evaluate(expression, _range(starts, starts))
    if sample.dtype != np.float32:
        return Unproved(f"is of element type {sample.dtype}")
    if np.unique(sample.low[sample.exact]).size > _MOST_VALUES:
        return Unproved("takes many values")
    known: list[tuple[np.ndarray, np.ndarray]] = []
    spent = 0
    while starts.size:
        spent += starts.size
        if spent > _BUDGET:
            return Unproved("could not be proved to take few values")
        result = evaluate(expression, _range(starts, ends))
        done = result.exact & np.isfinite(result.low)
        known.append((starts[done], result.low[done] + np.float32(0)))  # -0.0 + 0.0 is 0.0
        starts, ends = starts[~done], ends[~done]
        single = np.flatnonzero(starts == ends)
        if single.size:
            return Unproved(f"has no finite value at {_float(starts[single[:1]])[0]!s}")
        starts, ends = _cut(starts, ends)
    all_starts, all_values = (np.concatenate(part) for part in zip(*known, strict=True))
    order = np.argsort(all_starts)
    all_starts, all_values = all_starts[order], all_values[order]
    first = np.flatnonzero(np.append(True, all_values[1:] != all_values[:-1]))
    values = tuple(float(value) for value in all_values[first])
    breaks = tuple(float(end) for end in _float(all_starts[first[1:]] - 1))
    return StepFunction(values, breaks, _holds_outside(expression, values))


def prove_around(expression: Expression) -> StepFunction | Unproved:
    """``expression`` where x is read only by comparisons with one threshold: below it, at it and above it.

    The threshold, which may be one number per channel, is the constant 0 in ``expression``; ends are about that 0.
    """
    points = np.array([-1, 0, 1], np.float32)
    try:
        result = evaluate(expression, Interval(points, points, np.zeros(3, bool)))
    except ValueError as error:
        return Unproved(f"holds {error}")
    if result.dtype != np.float32 or not (result.exact & np.isfinite(result.low)).all():
        return Unproved("has no finite float32 value somewhere around its threshold")
    values = result.low + np.float32(0)
    breaks = [float(_float(np.array([end]))[0]) for end in (-1, 0)]
    kept = [0, *(index for index in (1, 2) if values[index] != values[index - 1])]
    return StepFunction(
        tuple(float(values[index]) for index in kept), tuple(breaks[index - 1] for index in kept[1:]), True
    )


def _ordinal(value: np.ndarray | np.float32) -> np.ndarray:
    """Floats as integers in the same order, neighbours one apart; both zeros are 0."""
    bits = np.asarray(value, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _float(ordinal: np.ndarray) -> np.ndarray:
    magnitude: NDArray[np.float32] = np.abs(ordinal).astype(np.int32).view(np.float32)
    return np.where(ordinal < 0, -magnitude, magnitude)


def _range(starts: np.ndarray, ends: np.ndarray) -> Interval:
    return Interval(_float(starts), _float(ends), np.zeros(starts.shape, bool))


def _first_ranges(expression: Expression) -> np.ndarray:
    """Starts of the first ranges: quarters of all binades, and each constant, either sign, alone."""
    largest = int(_ordinal(LIMIT))
    quarters = np.arange(0, largest + 1, 2**21, dtype=np.int64)
    starts = [quarters, 1 - quarters, np.array([-largest])]
    for constant in expression.constant_values():
        if constant.dtype.kind != "b" and abs(float(constant[0])) < float(LIMIT):
            place = int(_ordinal(np.abs(constant.astype(np.float32)))[0])
            starts.append(np.array([place, place + 1, -place, 1 - place]))
    found = np.unique(np.concatenate(starts))
    return found[(found >= -largest) & (found <= largest)]


def _cut(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each range in up to _PIECES, none of them empty."""
    sizes = ends - starts + 1
    steps = np.arange(_PIECES + 1)[None, :] * sizes[:, None] // _PIECES
    cuts = starts[:, None] + steps
    new_starts, new_ends = cuts[:, :-1].reshape(-1), cuts[:, 1:].reshape(-1) - 1
    kept = new_ends >= new_starts
    return new_starts[kept], new_ends[kept]


def _holds_outside(expression: Expression, values: tuple[float, ...]) -> bool:
    """Whether the first and last value also hold from LIMIT to infinity."""
    largest = np.float32(np.finfo(np.float32).max)
    low = np.array([-np.inf, -largest, LIMIT, np.inf], np.float32)
    high = np.array([-np.inf, -LIMIT, largest, np.inf], np.float32)
    result = evaluate(expression, Interval(low, high, np.zeros(4, bool)))
    expected = np.array([values[0], values[0], values[-1], values[-1]], np.float32)
    return bool((result.exact & (result.low == expected)).all())
