"""Sums that do not depend on the order of their terms, nor on how these come in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Every difference of two float32 numbers, rounded to float64, is a whole multiple of the smallest float32 number above 0:
# rounding drops bits only where the number is so large that those left stand far above.
_UNIT_EXPONENT = 149
_MANTISSA_BITS = 53
_LOW_BITS = 26
# A sum of this many halves of a mantissa (27 bits) is exact in float64, which is what `bincount` adds in.
_MOST_TERMS = 2**_LOW_BITS


@dataclass
class ExactSum:
    """The exact sum of differences of float32 numbers.

    Attributes:
        units: the sum in units of 2**-149.
    """

    units: int = 0

    def add(self, terms: np.ndarray) -> None:
        """Add finite float64 numbers that are multiples of 2**-149, such as differences of float32 numbers."""
        flat = terms.reshape(-1)
        for start in range(0, flat.size, _MOST_TERMS):
            self._add(flat[start : start + _MOST_TERMS])

    def _add(self, terms: np.ndarray) -> None:
        fraction, exponent = np.frexp(terms)
        mantissa = np.ldexp(fraction, _MANTISSA_BITS).astype(np.int64)
        lowest = int(exponent.min())
        groups = exponent - lowest
        high = np.bincount(groups, weights=mantissa >> _LOW_BITS)
        low = np.bincount(groups, weights=mantissa & ((1 << _LOW_BITS) - 1))
        total = 0
        for index in np.flatnonzero((high != 0) | (low != 0)):
            total += ((int(high[index]) << _LOW_BITS) + int(low[index])) << int(index)
        shift = lowest - _MANTISSA_BITS + _UNIT_EXPONENT
        self.units += total << shift if shift >= 0 else total >> -shift

    def mean(self, count: int) -> float:
        """The sum over ``count``, rounded once."""
        # The quotient of two integers is rounded correctly however long they are.
        return self.units / (count << _UNIT_EXPONENT)
