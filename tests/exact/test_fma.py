"""The fused multiply-add against rational numbers, and chains of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.exact import fma as fma_module
from bnn_deploy.exact.fma import fma, multiply_add_chain

# Zeros, subnormal numbers, neighbours of 1 and of powers of two, the largest numbers, infinities and NaN.
SMALL = [0.0, 2.0**-149, 3 * 2.0**-149, 2.0**-126, 2.0**-126 - 2.0**-149, 2.0**-75, 2.0**-25, 2.0**-24]
LARGE = [1 - 2.0**-24, 1.0, 1 + 2.0**-23, 4097.0, 2.0**24 + 2, 2.0**64, 2.0**127, 2.0**128 - 2.0**104, np.inf, np.nan]
SPECIAL = np.array([sign * number for sign in (1, -1) for number in (*SMALL, *LARGE)], np.float32)
floats = st.floats(width=32) | st.sampled_from([float(number) for number in SPECIAL])


def bits(number: np.float32) -> int:
    return int(np.float32(number).view(np.uint32)) if not np.isnan(number) else -1


def rounded(value: Fraction) -> np.float32:
    """A number that is not 0, rounded to float32 by its own definition: the nearest multiple, ties to the even one."""
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    spacing = Fraction(2) ** (max(exponent, -126) - 23)
    steps = round(magnitude / spacing)
    result = float(steps * spacing) if steps * spacing < Fraction(2) ** 128 else np.inf
    return np.float32(result if value > 0 else -result)


def exact(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """``a * b + c`` by rational arithmetic; where nothing is rounded, by float64."""
    numbers = [float(number) for number in (a, b, c)]
    with np.errstate(all="ignore"):
        wide = np.float64(numbers[0]) * np.float64(numbers[1]) + np.float64(numbers[2])
    if not all(np.isfinite(number) for number in numbers):
        return np.float32(wide)
    value = Fraction(numbers[0]) * Fraction(numbers[1]) + Fraction(numbers[2])
    # A sum that is exactly 0 has the sign that any IEEE addition gives it.
    return np.float32(wide) if value == 0 else rounded(value)


@settings(deadline=None, max_examples=400)
@given(floats, floats, floats)
def test_fma(a: float, b: float, c: float) -> None:
    """Breaks if a product and a sum are rounded twice, or if infinities, NaN, subnormal numbers or zeros' signs go wrong."""
    numbers = [np.float32(number) for number in (a, b, c)]
    with np.errstate(all="ignore"):
        found = fma(*(np.array([number]) for number in numbers))
    assert found.dtype == np.float32
    assert bits(found[0]) == bits(exact(*numbers))


def test_all_special_numbers() -> None:
    """Breaks at the corners of float32, all combinations of three of them."""
    a, b, c = (grid.ravel() for grid in np.meshgrid(SPECIAL, SPECIAL, SPECIAL, indexing="ij"))
    found = fma(a, b, c)
    wrong = [(x, y, z, f) for x, y, z, f in zip(a, b, c, found, strict=True) if bits(f) != bits(exact(x, y, z))]
    assert not wrong, wrong[:5]


def test_double_rounding() -> None:
    """Breaks if a sum is rounded to float64 first: just beside halfway between two float32, that gives the wrong one."""
    # The product is 2**-24 * (1 - 2**-40): with 1 + 2**-23 just below halfway to the even 1 + 2**-22.
    a, b = np.float32(1 + 2.0**-20), np.float32(2.0**-24 * (1 - 2.0**-20))
    cases = [(a, b, np.float32(1 + 2.0**-23)), (a, -b, np.float32(-1 - 2.0**-23))]
    for case in cases:
        assert bits(fma(np.array([case[0]]), *case[1:])[0]) == bits(exact(*case))
        twice = np.float32(np.float64(case[0]) * np.float64(case[1]) + np.float64(case[2]))
        assert bits(twice) != bits(exact(*case)), "the case shows nothing"


@settings(deadline=None, max_examples=25)
@given(
    terms=st.integers(1, 7),
    groups=st.integers(1, 5),
    outputs=st.integers(1, 40),
    positions=st.integers(1, 70),
    scale=st.sampled_from([1.0, 2.0**-70, 2.0**60]),
    coarse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_chain(terms: int, groups: int, outputs: int, positions: int, scale: float, coarse: bool, seed: int) -> None:
    """Breaks if blocks of a chain are put together wrongly, or if its short cuts round another way than ``fma`` does."""
    random = np.random.default_rng(seed)
    x, weights = random.normal(size=(terms, groups, positions)), random.normal(size=(terms, groups, outputs))
    if coarse:
        # Sums of 1 + k * 2**-23 and 2**-24 * (1 +- 2**-40): beside halfway between two float32, and in float64 just there.
        x, weights = 1 + np.sign(x) * 2.0**-20, 1 - np.sign(weights) * 2.0**-20
        x[0], weights[0], weights[1:] = 1, 1 + 2.0**-23, weights[1:] * 2.0**-24
    x, weights = (x * scale).astype(np.float32), (weights * scale).astype(np.float32)
    expected = np.zeros((groups, outputs, positions), np.float32)
    for k in range(terms):
        expected = fma(x[k, :, None, :], weights[k, :, :, None], expected)
    before, fma_module._BLOCK = fma_module._BLOCK, 128
    try:
        found = multiply_add_chain(x, weights)
    finally:
        fma_module._BLOCK = before
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
