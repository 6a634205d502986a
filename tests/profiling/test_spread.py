"""The statistics of repeated times: everything else that is said about speed rests on them."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_deploy.profiling.spread import interval_rank, spread_of


@pytest.mark.parametrize("count", [6, 7, 8, 9, 20, 50, 999, 1000])
def test_interval_has_its_coverage_and_no_more(count: int) -> None:
    """Breaks if the interval encloses the median less often than 95%, or could be narrower by one rank on either side."""
    rank = interval_rank(count)

    def missed(k: int) -> float:
        return 2 * sum(comb(count, i) for i in range(k)) / 2**count

    assert missed(rank) <= 0.05 < missed(rank + 1)


@pytest.mark.parametrize("count", [1001, 1500, 3000])
def test_interval_of_many(count: int) -> None:
    """Breaks if the approximation for many repeats is narrower than it may be, or more than one rank wider."""
    rank = interval_rank(count)

    def missed(k: int) -> float:
        return 2 * sum(comb(count, i) for i in range(k)) / 2**count

    assert missed(rank) <= 0.05 < missed(rank + 2)


def test_interval_of_twenty() -> None:
    """Breaks if the interval is of other ranks than the tables': the 6th and the 15th of 20."""
    spread = spread_of(np.random.default_rng(0).permutation(np.arange(1.0, 21.0)))
    assert spread.interval == (6, 15) and spread.median == 10.5 and spread.min == 1
    assert spread.quartiles == (5.75, 15.25)


def test_few_repeats() -> None:
    """Breaks if five repeats claim an interval that five repeats cannot give."""
    assert spread_of(np.arange(1.0, 6.0)).interval is None
    assert spread_of(np.arange(1.0, 7.0)).interval == (1, 6)


def test_drift() -> None:
    """Breaks if a board that gets slower while it is measured looks steady."""
    assert spread_of(np.array([1.0] * 10 + [1.2] * 10)).drift == pytest.approx(0.2)
    assert spread_of(np.array([1.0] * 20)).drift == 0
    assert spread_of(np.zeros(20)).drift == 0


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.floats(1e-3, 1e3))
def test_order_and_scale(values: list[float], factor: float) -> None:
    """Breaks if the parts of a spread are out of order, or depend on the unit of time."""
    spread = spread_of(np.array(values))
    assert spread.min <= spread.quartiles[0] <= spread.median <= spread.quartiles[1] <= max(values)
    if spread.interval is not None:
        assert min(values) <= spread.interval[0] <= spread.median <= spread.interval[1] <= max(values)
    scaled = spread_of(np.array(values) * factor)
    assert scaled.median == pytest.approx(spread.median * factor, rel=1e-9)
    assert scaled.p90 == pytest.approx(spread.p90 * factor, rel=1e-9)
