"""What the times of many repeats say together: a median, how far they scatter, and how sure the median is."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt

import numpy as np

# Below this many repeats no two of them enclose the median with 95% (2 * 0.5^5 > 5%).
FEWEST_FOR_INTERVAL = 6
# Halves of fewer than 4 repeats say nothing about drift.
FEWEST_FOR_DRIFT = 8


@dataclass(frozen=True)
class Spread:
    """Times of one thing over the repeats, all in the same unit.

    Attributes:
        median, min, p90: p90 is the 90th percentile.
        quartiles: first and third; half of the repeats lie between them.
        interval: 95% interval of the median by order statistics, which needs no assumption about the distribution but that
            repeats are independent; None for fewer than 6 repeats, which have none.
        drift: median of the later half of the repeats over that of the earlier half, minus 1; 0 for fewer than 8.
    """

    median: float
    min: float
    p90: float
    quartiles: tuple[float, float]
    interval: tuple[float, float] | None
    drift: float

    @property
    def relative_range(self) -> float:
        """Interquartile range over the median; 0 if that is 0."""
        return (self.quartiles[1] - self.quartiles[0]) / self.median if self.median else 0.0


def spread_of(values: np.ndarray) -> Spread:
    """The spread of ``values``.

    Args:
        values: float64 ``(repeat,)``, at least one, in the order of measurement.
    """
    count = len(values)
    low, median, high, p90 = (float(value) for value in np.percentile(values, (25, 50, 75, 90)))
    interval = None
    if count >= FEWEST_FOR_INTERVAL:
        rank = interval_rank(count)
        ordered = np.sort(values)
        interval = (float(ordered[rank - 1]), float(ordered[count - rank]))
    drift = 0.0
    if count >= FEWEST_FOR_DRIFT:
        earlier, later = float(np.median(values[: count // 2])), float(np.median(values[count // 2 :]))
        drift = later / earlier - 1 if earlier > 0 else 0.0
    return Spread(median, float(np.min(values)), p90, (low, high), interval, drift)


def interval_rank(count: int) -> int:
    """The ``k`` for which the k-th smallest and the k-th largest of ``count`` values enclose the median with >= 95%.

    Each value is below the median with probability 1/2, so the number B below it is binomial, and the interval misses the
    median with 2 P(B < k): k is the largest with P(B < k) <= 2.5%. See e.g. H. A. David and H. N. Nagaraja, "Order
    Statistics", 3rd edition, section 7.1.

    Args:
        count: at least ``FEWEST_FOR_INTERVAL``.
    """
    if count > 1000:
        # The normal approximation: for every count up to 100000 it is the binomial's rank or one below it, which is wider.
        return int((count - 1.96 * sqrt(count)) / 2)
    below, rank = 0, 0
    while 40 * (below + comb(count, rank)) <= 2**count:
        below += comb(count, rank)
        rank += 1
    return rank
