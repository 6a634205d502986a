"""Timing several things against each other on a machine that is never quiet: in turns, many times, as ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Times:
    """Of one program, float64 ``(rounds,)``: the median seconds of one call in each round.

    Attributes:
        wall: on the clock. Where others compute too, a call longer than the scheduler's slices waits for them, and a
            shorter one hardly does.
        processor: of all this process's threads; waiting is not in it.
    """

    wall: np.ndarray
    processor: np.ndarray


def interleave(
    runs: Mapping[str, Callable[[], object]], rounds: int, calls: int, pause: float = 0.0
) -> dict[str, Times]:
    """Time all ``runs`` in every round, and start each round with another one of them.

    Whatever slows the machine down for longer than a round slows all of them, so ratios within a round are what to trust.

    Args:
        runs: what to time, by name.
        rounds: how often everything has its turn.
        calls: timed calls in one turn, after one that is not timed and brings its data back into the caches.
        pause: seconds of sleep between turns, for threads of the last one to come to rest.
    """

    def measure(run: Callable[[], object]) -> np.ndarray:
        time.sleep(pause)
        run()
        return np.median([_timed(run) for _ in range(calls)], axis=0)

    measured = in_turns({name: partial(measure, run) for name, run in runs.items()}, rounds)
    return {name: Times(*np.array(rows).T) for name, rows in measured.items()}


def in_turns(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What all ``measures`` give in every round; each round starts with another one of them."""
    names = list(measures)
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(measures[name]())
    return found


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def spread(values: np.ndarray) -> dict[str, float]:
    """Median, smallest, and the values that a tenth are below and above."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return {"median": float(median), "min": float(values.min()), "p10": float(low), "p90": float(high)}
