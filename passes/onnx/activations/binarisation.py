"""Which ``bnn_deploy`` operator a step function is: Sign or Ternary, with a scalar factor and a scalar offset after it.

    values (p, q)              y = Sign(x, t, ±1) * (q - p)/2 + (q + p)/2
    values (p, (p+q)/2, q)     y = Sign(x, t, 0) * ...        where the middle value is taken at one float t only
                               y = Ternary(x * 0.5/h) * ...   where it is taken for |x| <= h, 0.5/h a power of two
A falling function has a negative factor.

Not handled: factors or offsets that float32 does not hold exactly, a middle range that is not symmetric about 0, more values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, frexp, log2

import numpy as np

from bnn_deploy.passes.onnx.activations.step_function import StepFunction


@dataclass(frozen=True)
class Binarisation:
    """``scale * b(x) + offset``, every number a float32.

    Attributes:
        zero: the attribute of Sign(x, threshold); None for Ternary(x * stretch).
        threshold: of Sign; for Ternary the h of ``|x| <= h``, where it is 0.
        stretch: a power of two.
    """

    zero: int | None
    threshold: float
    stretch: float
    scale: float
    offset: float


def binarisation_of(function: StepFunction, preferred: Collection[float] = ()) -> Binarisation | str:
    """How ``function`` is computed by Sign or Ternary, or what it is instead, as the end of a sentence.

    Args:
        preferred: thresholds to choose where there is a choice (0 comes first): those that the graph names.
    """
    values, ends = function.values, function.ends
    if len(values) == 1:
        return f"is always {values[0]:g}"
    count = len(set(values))
    if count > 3:
        return f"takes {count} values ({ceil(log2(count))} bits)"
    rising = all(one < other for one, other in pairwise(values))
    falling = all(one > other for one, other in pairwise(values))
    if not rising and not falling:
        return f"takes {count} values, but neither rises nor falls from one to the next"
    first, last = values[0], values[-1]
    scale, offset = (last - first) / 2, (last + first) / 2
    with np.errstate(over="ignore"):
        rounded = np.float32(scale), np.float32(offset)
        results = -rounded[0] + rounded[1], rounded[1], rounded[0] + rounded[1]
    if (rounded[0], rounded[1], results[0], results[2]) != (scale, offset, first, last):
        return f"takes the values {first:g} and {last:g}, whose mean and distance float32 does not hold exactly"
    if count == 2:
        threshold, zero = _between(ends[0], preferred)
        return Binarisation(zero, threshold, 1.0, scale, offset)
    if values[1] != offset:
        return f"takes 3 values, {', '.join(f'{value:g}' for value in values)}, that are not equally far apart"
    low, high = float(np.nextafter(np.float32(ends[0]), np.float32(np.inf))) + 0.0, ends[1]
    if low == high:
        return Binarisation(0, low, 1.0, scale, offset)
    if low == -high and frexp(high)[0] == 0.5 and high >= 2.0**-60:
        return Binarisation(None, high, 0.5 / high, scale, offset)
    return f"is {offset:g} for x from {low:.9g} to {high:.9g}, where only bounds ±a power of two can be had"


def _between(end: float, preferred: Collection[float]) -> tuple[float, int]:
    """(threshold, attribute zero) of a step after the float ``end``: x > end, or x >= the next float."""
    following = float(np.nextafter(np.float32(end), np.float32(np.inf))) + 0.0
    if end == 0.0 or following == 0.0:
        return 0.0, -1 if end == 0.0 else 1
    return (following, 1) if following in preferred and end not in preferred else (end, -1)
