"""Timing several things against each other on a machine that is never quiet: in turns, many times, as ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleave(
    runs: Mapping[str, Callable[[], object]], rounds: int, calls: int, pause: float = 0.0
) -> dict[str, np.ndarray]:
    """Time all ``runs`` in every round, and start each round with another one of them.

    Whatever slows the machine down for longer than a round slows all of them, so ratios within a round are what to trust.

    Args:
        runs: what to time, by name.
        rounds: how often everything has its turn.
        calls: timed calls in one turn, after one that is not timed and brings its data back into the caches.
        pause: seconds of sleep between turns, for threads of the last one to come to rest.

    Returns:
        float64 ``(rounds,)`` by name: the median seconds of one call in that round.
    """
    names = list(runs)
    seconds = {name: np.zeros(rounds) for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause)
            run, times = runs[name], np.zeros(calls)
            run()
            for index in range(calls):
                started = time.perf_counter()
                run()
                times[index] = time.perf_counter() - started
            seconds[name][turn] = np.median(times)
    return seconds


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, smallest, and the values that a tenth are below and above."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return {"median": float(median), "min": float(values.min()), "p10": float(low), "p90": float(high)}
