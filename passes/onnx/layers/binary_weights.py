"""Are these weights ±a? Signs and scales of a layer's weights, or words on what they hold instead (numpy only).

Before::

    one output channel: 0.0312500 -0.0312499 -0.0312500 0.0312501
After::

    signs + - - +, scale 0.03125, deviation 3.2e-6 (said in the report)

Weights are judged in float64, so that a float16 or bfloat16 ±a is exactly ±a.

Not handled: weights of one magnitude for each *input* channel, and sums of several binary kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# How far a magnitude may be from the median of its channel. Two units in the last place at the worst, just above a power of
# two, are 2 * 2**-23 = 2.384e-7: what is left where ±a was rounded a few times on its way (mean, multiply, batch norm).
RELATIVE_ROUNDING = 2.4e-7
# Training code leaves w = fl(fl(a*s - c) + c), s = ±1 and c, the real weight clipped to [-1, 1], of the sign of s. So
# |a*s - c| = |a - |c|| <= max(a, 1): the first rounding adds at most 2**-25 * max(1, 2a), whatever a is, the second 2**-24 * a:
# an *absolute* error of up to 2**-25 * (1 + 4a), hence large beside a small a. Against the median, which may carry the same
# error, it is 2**-24 * (1 + 4a). A batch norm that the exporter folded into the weights multiplies both a and the error by
# its factor; up to a factor of 16 / (1 + 4a) the error stays below
ABSOLUTE_ROUNDING = 2.0**-20
# and nothing is called ±a that differs by more than this in relation: the largest possible leftover beside an a of 2**-8. It
# moves a sum of products by less than one part in 65,536.
RELATIVE_LIMIT = 2.0**-16

# Most elements that are looked at together: float64 copies of one block are the only memory that judging needs.
_BLOCK = 1 << 22
# Up to so many different values are counted as levels of a quantiser.
_MOST_LEVELS = 16


@dataclass(frozen=True)
class BinaryWeights:
    """Weights that are ±a.

    Attributes:
        signs: bool (O, taps, depth), True is +a; False where the weight is exactly 0.
        scale: float64 (O,), or (O, taps) where every kernel position has its own; 0.0 for one that is pruned (all zeros).
        deviation: largest relative difference of a magnitude from its scale.
        zeros: how many weights are exactly 0 although others of their channel (and tap) are not.
    """

    signs: np.ndarray
    scale: np.ndarray
    deviation: float
    zeros: int

    @property
    def per_tap(self) -> bool:
        """Whether every kernel position has its own scale."""
        return self.scale.ndim == 2

    @property
    def words(self) -> str:
        """What the weights hold, for the report."""
        if self.per_tap and self.signs.shape[2] == 1:
            return "one real number per kernel position"
        kind = "±a per output channel" + " and kernel position" * self.per_tap
        return kind if self.zeros == 0 else f"{kind} and {self.zeros:,} exact zeros"


@dataclass(frozen=True)
class RealWeights:
    """Weights that are not ±a: what they hold in words, and the spread of magnitudes in their worst channel, in [0, 1)."""

    words: str
    spread: float


def judge_weights(weights: np.ndarray, of_signs: bool = False) -> BinaryWeights | RealWeights:
    """Whether weights are ±a for each output channel, or else for each output channel and kernel position.

    Zeros count against neither: of several ways to read the weights, one without zeros comes first, then one scale per
    channel. With one input channel per group (depthwise), one scale per kernel position is true of any weights: that counts
    where the input is known to hold signs, since they are then multiplied on bits (the released BiMLP's 1x7 and 7x1).

    Args:
        weights: float of any width, (O, taps, depth): output channels, kernel positions (1 for a matrix), inputs.
        of_signs: whether the layer's input holds signs or -1, 0 and +1.
    """
    if weights.size == 0:
        return RealWeights("nothing", 0.0)
    if not all(np.isfinite(block).all() for block in _blocks(weights)):
        return RealWeights("NaN or infinity", np.nextafter(1.0, 0.0))
    channel = _one_scale(weights, per_tap=False)
    if channel is not None and channel.zeros == 0:
        return channel
    several = weights.shape[1] > 1 and (weights.shape[2] > 1 or of_signs)
    tap = _one_scale(weights, per_tap=True) if several else None
    if tap is not None and (channel is None or tap.zeros == 0):
        return tap
    return channel or _describe(weights)


def _blocks(weights: np.ndarray) -> Iterator[np.ndarray]:
    """float64 copies of a few output channels at a time."""
    step = max(1, _BLOCK // max(1, weights[0].size))
    for start in range(0, len(weights), step):
        yield weights[start : start + step].astype(np.float64)


def _one_scale(weights: np.ndarray, per_tap: bool) -> BinaryWeights | None:
    scales, deviation, zeros = [], 0.0, 0
    for block in _blocks(weights):
        rows = np.abs(block).reshape(-1, block.shape[2]) if per_tap else np.abs(block).reshape(len(block), -1)
        judged = _agree(rows)
        if judged is None:
            return None
        scales.append(judged[0])
        deviation, zeros = max(deviation, judged[1]), zeros + judged[2]
    scale = np.concatenate(scales)
    return BinaryWeights(weights > 0, scale.reshape(len(weights), -1) if per_tap else scale, deviation, zeros)


def _agree(magnitudes: np.ndarray) -> tuple[np.ndarray, float, int] | None:
    """(scale of each row, largest relative deviation, zeros in rows that are not all zero), None if a row disagrees."""
    is_zero = magnitudes == 0
    largest = magnitudes.max(axis=1)
    smallest = np.where(is_zero, np.inf, magnitudes).min(axis=1)
    live = largest > 0
    # Cheap, and true of nearly all real weights: a range that no median can be in the middle of.
    if np.any(largest[live] - smallest[live] > 2 * _tolerance(largest[live])):
        return None
    scale = np.zeros(len(magnitudes))
    for row in np.flatnonzero(live):
        scale[row] = np.median(magnitudes[row][~is_zero[row]])
    distance = np.maximum(largest[live] - scale[live], scale[live] - smallest[live])
    if np.any(distance > _tolerance(scale[live])):
        return None
    deviation = float(np.max(distance / scale[live], initial=0.0))
    return scale, deviation, int(is_zero[live].sum())


def _tolerance(scale: np.ndarray) -> np.ndarray:
    return np.maximum(RELATIVE_ROUNDING * scale, np.minimum(RELATIVE_LIMIT * scale, ABSOLUTE_ROUNDING))


def _describe(weights: np.ndarray) -> RealWeights:
    levels, magnitudes, spread = 0, 0, 0.0
    for block in _blocks(weights):
        rows = np.sort(block.reshape(len(block), -1), axis=1)
        levels = max(levels, _different(rows))
        rows = np.sort(np.abs(rows), axis=1)
        magnitudes = max(magnitudes, _different(rows))
        smallest = np.where(rows == 0, np.inf, rows).min(axis=1)
        live = np.isfinite(smallest)
        spread = max(spread, float(np.max(1 - smallest[live] / rows[live, -1], initial=0.0)))
    spread = min(spread, float(np.nextafter(1.0, 0.0)))
    # Few weights are no quantiser only because they are few.
    if levels <= _MOST_LEVELS and 2 * levels <= weights[0].size:
        bits = max(1, (levels - 1).bit_length())
        plural = "s" * (bits > 1)
        return RealWeights(f"{levels} different values per output channel ({bits} bit{plural})", spread)
    percent = min(99, round(100 * spread))
    return RealWeights(f"{magnitudes:,} different magnitudes per output channel, spread {percent}%", spread)


def _different(rows: np.ndarray) -> int:
    """The most different values in one sorted row; neighbours that only rounding can tell apart count once."""
    gaps = np.diff(rows, axis=1) > _tolerance(np.abs(rows[:, 1:]))
    return 1 + int(gaps.sum(axis=1).max(initial=0))
