"""Operators that compute each element by itself: every one rounds once, and none is merged with another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnn_deploy.exact.fma import Array, Floats
from bnn_deploy.exact.functions import cosine, exponential, gelu_by_tanh, hyperbolic_tangent, sigmoid, sine
from bnn_deploy.exact.operation import NoRuleError, Operation

_ZERO, _ONE = np.float32(0), np.float32(1)


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum; a *scalar* 0 is not added, so that -0 stays."""
    if _is_scalar(b, 0):
        return a
    return b if _is_scalar(a, 0) else np.add(a, b)


def subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference; a *scalar* 0 is not subtracted."""
    return a if _is_scalar(b, 0) else np.subtract(a, b)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product; a *scalar* 1 is not multiplied by, and a scalar 0 gives 0, of NaN too."""
    for scalar, other in ((a, b), (b, a)):
        if _is_scalar(scalar, 1):
            return other
        if _is_scalar(scalar, 0):
            return np.zeros_like(other)
    product: np.ndarray = np.multiply(a, b)
    return product


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The quotient, of floats."""
    if a.dtype.kind != "f":
        raise NoRuleError("of whole numbers")
    if _is_scalar(a, 0):
        return np.zeros_like(b)
    return a if _is_scalar(b, 1) else np.divide(a, b)


def maximum(a: Floats, b: Floats) -> np.ndarray:
    """``a > b ? a : b``: b of two zeros, and where either is NaN."""
    return np.where(a > b, a, b)


def minimum(a: Floats, b: Floats) -> np.ndarray:
    """``a < b ? a : b``."""
    return np.where(a < b, a, b)


def power(a: Array, b: Array) -> Array:
    """Squares only: other powers are the C library's."""
    if not _is_scalar(b, 2):
        raise NoRuleError("with an exponent other than 2, which is computed by the C library")
    return a * a


def rectify(x: Array) -> Array:
    """relu: ``x > 0 ? x : +0``, of NaN too."""
    return maximum(x, _ZERO)


def sign(x: np.ndarray) -> np.ndarray:
    """-1, 0 or 1; 0 of NaN."""
    return np.subtract(x > 0, x < 0, dtype=x.dtype)


def clip(_: Operation, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """``maximum(minimum(x, high), low)``."""
    return maximum(minimum(x, x.dtype.type(high)), x.dtype.type(low))


def prelu(operation: Operation, x: Array, slope: Array) -> Array:
    """``x > 0 ? x : x * slope``, with a slope per channel along an axis."""
    shape = [1] * x.ndim
    shape[operation.axis(x.ndim)] = slope.size
    return np.where(x > 0, x, x * slope.reshape(shape))


def leaky_relu(operation: Operation, x: Array) -> Array:
    """``x > 0 ? x : x * alpha``."""
    return np.where(x > 0, x, x * operation.number("alpha"))


def where(_: Operation, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Elements of a where the condition holds, else of b."""
    return np.where(condition, a, b)


def cast(operation: Operation, x: np.ndarray) -> np.ndarray:
    """To another type."""
    if x.dtype.kind == "f" and operation.dtype.startswith(("int", "uint")) and not np.isfinite(x).all():
        raise NoRuleError("of infinities or NaN to whole numbers, which processors convert differently")
    return x.astype(operation.dtype)


def _is_scalar(value: np.ndarray, number: float) -> bool:
    """Whether it is a constant of no axes with this value; those are folded when kernels are made."""
    return np.ndim(value) == 0 and bool(value == number)


Arrays = Callable[..., np.ndarray]

# Functions of arrays alone.
PLAIN: dict[str, Arrays] = {
    "relax.add": add,
    "relax.subtract": subtract,
    "relax.multiply": multiply,
    "relax.divide": divide,
    "relax.maximum": maximum,
    "relax.minimum": minimum,
    "relax.power": power,
    "relax.square": lambda x: x * x,
    "relax.negative": lambda x: -x,
    "relax.sign": sign,
    "relax.abs": np.abs,
    "relax.floor": np.floor,
    "relax.ceil": np.ceil,
    "relax.trunc": np.trunc,
    "relax.round": np.rint,
    "relax.sqrt": np.sqrt,
    "relax.rsqrt": lambda x: _ONE / np.sqrt(x),
    "relax.sin": sine,
    "relax.cos": cosine,
    "relax.exp": exponential,
    "relax.sigmoid": sigmoid,
    "relax.tanh": hyperbolic_tangent,
    "relax.nn.gelu_tanh": gelu_by_tanh,
    "relax.nn.silu": lambda x: x * sigmoid(x),
    "relax.nn.relu": rectify,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.equal": np.equal,
    "relax.not_equal": np.not_equal,
    "relax.logical_and": np.logical_and,
    "relax.logical_or": np.logical_or,
    "relax.logical_not": np.logical_not,
    "relax.isnan": np.isnan,
}
