"""The fused multiply-add of float32 in numpy, correctly rounded, and chains of it.

The product of two float32 is exact in float64 (48 bits of 53). Its sum with a third is rounded to 53 bits and then to 24; that
is the sum rounded once, unless the first rounding ends halfway between two float32. Only there the error of the first rounding
is computed (Knuth's TwoSum) and the sum is moved to the side that the error points to, as rounding to odd does (Boldo and
Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Transactions on Computers 57(4), 2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The bits of a float64 that a normal float32 lacks, and their value halfway between two of them.
_LOST_BITS = np.int64((1 << 29) - 1)
_HALFWAY = np.int64(1 << 28)
_SMALLEST_NORMAL = 2.0**-126
# Elements of a block: four buffers of them stay in a core's second-level cache.
_BLOCK = 16384
# A product of numbers from these on is a multiple of the smallest subnormal, 2**-149, and so are sums: a sum below the smallest
# normal number is then exact. Magnitudes 2**i and 2**j with 24 bits each: i - 23 + j - 23 >= -149.
_EXACT_BELOW_NORMAL = 2.0**-102


Array = NDArray[np.float32]
Floats = Array | np.float32


def fma(a: Floats, b: Floats, c: Floats) -> Array:
    """``a * b + c`` rounded once to nearest, ties to even; infinities, NaN, subnormal numbers and signed zeros as in IEEE 754.

    Args:
        a, b, c: float32, of shapes that broadcast.

    Returns:
        float32 of the common shape.
    """
    with np.errstate(all="ignore"):
        product: NDArray[np.float64] = np.multiply(a, b, dtype=np.float64)
        addend = np.asarray(c, np.float64)
        total = np.asarray(product + addend)
        bits = total.view(np.int64)
        # Below normal numbers other bits are lost, and 0 is exact.
        unsure = ((bits & _LOST_BITS) == _HALFWAY) | ((np.abs(total) < _SMALLEST_NORMAL) & (total != 0))
        if unsure.any():
            product, addend = np.broadcast_arrays(product, addend)
            total[unsure] = _rounded_to_odd(product[unsure], addend[unsure])
        return total.astype(np.float32)


def _rounded_to_odd(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """``a + b`` as float64 whose last bit is 1 if it is not exact: rounding it to float32 is rounding the sum once."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    bits = total.view(np.int64)
    # Magnitudes are ordered as their bits are: away from 0 adds 1.
    step = np.where((error > 0) == (total > 0), 1, -1)
    inexact = (error != 0) & np.isfinite(total) & ((bits & 1) == 0)
    rounded: NDArray[np.float64] = (bits + np.where(inexact, step, 0)).view(np.float64)
    return rounded


def multiply_add_chain(x: Array, weights: Array) -> Array:
    """``t = fma(x[k], weights[k], t)`` from ``t = +0`` over all k, for every pair of a position and an output of a group.

    Args:
        x: float32 (terms K, groups G, positions P).
        weights: float32 (K, G, outputs O).

    Returns:
        float32 (G, O, P).
    """
    _, groups, positions = x.shape
    outputs = weights.shape[2]
    result = np.empty((groups, outputs, positions), np.float32)
    step = max(1, min(positions, max(64, _BLOCK // outputs)))
    output_step = max(1, _BLOCK // step)
    group_step = max(1, _BLOCK // (step * min(output_step, outputs)))
    exact_below_normal = _smallest(x) * _smallest(weights) >= _EXACT_BELOW_NORMAL
    with np.errstate(all="ignore"):
        for group in range(0, groups, group_step):
            chosen = slice(group, group + group_step)
            for position in range(0, positions, step):
                columns = slice(position, position + step)
                elements = np.ascontiguousarray(x[:, chosen, None, columns], np.float64)
                for output in range(0, outputs, output_step):
                    rows = slice(output, output + output_step)
                    factors = np.ascontiguousarray(weights[:, chosen, rows, None], np.float64)
                    if exact_below_normal:
                        result[chosen, rows, columns] = _block_chain(elements, factors)
                    else:
                        result[chosen, rows, columns] = _careful_chain(elements, factors)
    return result


def _smallest(values: np.ndarray) -> float:
    """The smallest magnitude that is not 0; infinity of zeros only."""
    magnitudes = np.abs(values)
    return float(np.min(magnitudes, where=magnitudes > 0, initial=np.inf))


def _block_chain(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The chain of one block, x (K, G, 1, P) and weights (K, G, O, 1) float64, where no sum loses bits below normal numbers."""
    shape = np.broadcast_shapes(x.shape[1:], weights.shape[1:])
    total, rounded = np.zeros(shape), np.zeros(shape, np.float32)
    sums, halfway = np.empty(shape), np.empty(shape, bool)
    low, shifted = sums.view(np.dtype("<u4"))[..., ::2], np.empty(shape, np.uint32)
    for element, factor in zip(x, weights, strict=True):
        np.multiply(element, factor, out=sums)
        np.add(sums, total, out=sums)
        # The 29 lost bits are 1 and then zeros.
        np.left_shift(low, np.uint32(3), out=shifted)
        np.equal(shifted, np.uint32(1 << 31), out=halfway)
        if halfway.any():
            product = (element * factor)[halfway]
            sums[halfway] = _rounded_to_odd(product, total[halfway])
        np.copyto(rounded, sums, casting="same_kind")
        np.copyto(total, rounded)
    return rounded


def _careful_chain(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = np.zeros(np.broadcast_shapes(x.shape[1:], weights.shape[1:]), np.float32)
    for element, factor in zip(x, weights, strict=True):
        total = fma(element, factor, total)
    return total
