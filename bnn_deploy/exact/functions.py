"""sin, cos and exp as the kernels compute them (``passes.tir.vector_math``, whose constants these are), and what they make up."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.exact.fma import Array, fma
from bnn_deploy.passes.tir import vector_math as kernels

_ONE, _TWO = np.float32(1), np.float32(2)
_ROUNDER = np.float32(kernels.ROUNDER)
_HALF_PI = tuple(np.float32(float.fromhex(part)) for part in kernels.HALF_PI)
_LN_2 = tuple(np.float32(float.fromhex(part)) for part in kernels.LN_2)
_QUARTERS = tuple(tuple(float.fromhex(part) for part in parts) for parts in kernels.QUARTERS)
_HALF_PI_WIDE = float.fromhex("0x1.921fb54442d18p+0")


def sine(x: Array) -> Array:
    """float32 -> float32."""
    return _trigonometric(x, 0)


def cosine(x: Array) -> Array:
    """float32 -> float32."""
    return _trigonometric(x, 1)


def exponential(x: Array) -> Array:
    """float32 -> float32; infinite or 0 beyond its range, NaN of NaN."""
    least, most = (np.float32(bound) for bound in kernels.EXPONENTIAL_RANGE)
    with np.errstate(all="ignore"):
        bounded = np.where(x < least, least, np.where(x > most, most, x))
        turns = fma(bounded, np.float32(float.fromhex(kernels.LOG2_E)), _ROUNDER)
        rest = _reduced(bounded, turns, _LN_2)
        value = fma(_polynomial(kernels.EXPONENTIAL, rest) * rest, rest, rest) + _ONE
        power = turns.view(np.int32) - np.int32(kernels.ROUNDER_BITS)
        half = power >> 1
        scales = [((exponent + 127) << 23).astype(np.int32).view(np.float32) for exponent in (half, power - half)]
        result: Array = value * scales[0] * scales[1]
    return result


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    with np.errstate(all="ignore"):
        result: Array = _ONE / (_ONE + exponential(-x))
    return result


def hyperbolic_tangent(x: Array) -> Array:
    """``(1 - e) / (1 + e)`` of ``e = exp(-2 |x|)``, and the opposite for negative x."""
    with np.errstate(all="ignore"):
        power = exponential(np.abs(x) * -_TWO)
        magnitude = (_ONE - power) / (_ONE + power)
        result: Array = np.where(x < 0, -magnitude, magnitude)
    return result


def gelu_by_tanh(x: Array) -> Array:
    """``(x / 2) * (1 + tanh(sqrt(2 / pi) * x * (1 + 0.044715 * x * x)))``."""
    with np.errstate(all="ignore"):
        cube = np.float32(math.sqrt(2 / math.pi)) * x * (_ONE + np.float32(0.044715) * x * x)
        result: Array = np.float32(0.5) * x * (_ONE + hyperbolic_tangent(cube))
    return result


def _trigonometric(x: Array, quarters_ahead: int) -> Array:
    """sin(x + quarters_ahead * pi / 2)."""
    x = np.asarray(x, np.float32)
    with np.errstate(all="ignore"):
        absolute = np.abs(x)
        turns = fma(absolute, np.float32(float.fromhex(kernels.TWO_OVER_PI)), _ROUNDER)
        rest = _reduced(absolute, turns, _HALF_PI)
        # NaN is not small either.
        large = ~(absolute < np.float32(kernels.REDUCTION_BOUND))
        if large.any():
            turns[large], rest[large] = _wide_reduction(absolute[large])
        square = rest * rest
        sine_value = fma(_polynomial(kernels.SINE, square) * square, rest, rest)
        cosine_value = fma(_polynomial(kernels.COSINE, square), square, _ONE)
        quarter = turns.view(np.int32) + np.int32(quarters_ahead)
        bits = np.where((quarter & 1) == 1, cosine_value, sine_value).view(np.int32) ^ ((quarter & 2) << 30)
        if not quarters_ahead:
            bits = bits ^ (x.view(np.int32) & np.int32(-(2**31)))
        result: Array = bits.view(np.float32)
    return result


def _reduced(x: Array, turns: Array, period: tuple[np.float32, ...]) -> Array:
    """``x`` minus the whole number in ``turns`` of periods, part by part."""
    steps = turns - _ROUNDER
    for part in period:
        x = fma(steps, -part, x)
    return x


def _wide_reduction(x: Array) -> tuple[Array, Array]:
    """Turns and rest of large numbers, by float64: ``m * 2**(21 q)`` times a table of ``2**(21 q) * 2 / pi`` modulo 4."""
    wide = x.astype(np.float64)
    m, high, low = wide.copy(), *(np.full(wide.shape, part) for part in _QUARTERS[0])
    for power in range(1, len(_QUARTERS)):
        beyond = wide >= 2.0 ** (kernels.QUARTER_BITS + kernels.QUARTER_STEP * (power - 1))
        m = np.where(beyond, wide * 2.0 ** (-kernels.QUARTER_STEP * power), m)
        high, low = np.where(beyond, _QUARTERS[power][0], high), np.where(beyond, _QUARTERS[power][1], low)
    whole = np.rint(m * high)
    modulo = (whole - 4.0 * np.floor(whole * 0.25)).astype(np.float32)
    fraction = _fma_float64(m, low, _fma_float64(m, high, -whole))
    return modulo + _ROUNDER, (fraction * _HALF_PI_WIDE).astype(np.float32)


def _fma_float64(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """``a * b + c`` of float64 rounded once, for the few numbers that are reduced by float64."""

    def exact(numbers: tuple[np.float64, np.float64, np.float64]) -> float:
        if not np.isfinite(numbers).all():
            return float("nan")
        first, second, third = (Fraction(float(number)) for number in numbers)
        return float(first * second + third)

    columns = zip(a.ravel(), b.ravel(), c.ravel(), strict=True)
    return np.array([exact(numbers) for numbers in columns], np.float64).reshape(a.shape)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value: Array = np.full(x.shape, coefficients[-1], np.float32)
    for coefficient in reversed(coefficients[:-1]):
        value = fma(value, x, np.float32(coefficient))
    return value
