"""elementwise: bounds of a value hold whatever the operands are, and a value that is not known is not taken for a number."""

from __future__ import annotations

import numpy as np
import pytest

from bnn_deploy.passes.onnx.activations.elementwise import Interval, add, cast, divide


def between(low: list, high: list, dtype: type, undefined: bool = False) -> Interval:
    """One interval for each pair of bounds."""
    return Interval(np.array(low, dtype), np.array(high, dtype), np.full(len(low), undefined))


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("unknown", [(True, False), (False, True), (True, True)])
def test_a_sum_with_an_undefined_value_is_undefined(dtype: type, unknown: tuple[bool, bool]) -> None:
    """Breaks if an integer that wrapped around in a Cast, plus a number, counts as that number: steps that are none."""
    one, other = (between([0], [0], dtype, undefined) for undefined in unknown)
    assert add(one, other).undefined.all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_what_may_be_zero_may_be_false_and_what_may_not_be_is_true(dtype: type) -> None:
    """Breaks if a Cast to bool of a value from 0 to 1 counts as always False, or one of 0 as unknown."""
    truth = cast(between([0, 0, 1, -1, -1, -2], [0, 1, 2, 0, 1, -1], dtype), np.dtype(bool))
    np.testing.assert_array_equal(truth.low, [False, False, True, False, False, True])
    np.testing.assert_array_equal(truth.high, [False, True, True, True, True, True])


def test_a_quotient_of_ranges_that_both_reach_infinity_is_undefined() -> None:
    """Breaks if inf / inf, which is NaN, is taken for a number between the quotients of the other ends."""
    quotient = divide(
        between([1, 1, 1], [np.inf, np.inf, 2], np.float32), between([1, 1, 1], [np.inf, 2, 2], np.float32)
    )
    np.testing.assert_array_equal(quotient.undefined, [True, False, False])
