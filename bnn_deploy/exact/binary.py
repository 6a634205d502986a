"""The binary layers: dot products as whole numbers, then scale and shift as one fused multiply-add.

A dot product is a matrix product of -1, 0 and +1 in float32, which is exact in any order below 2**24; beyond it is one in
float64, rounded at the end as the kernels do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnn_deploy.bits import unpack_bits
from bnn_deploy.exact.fma import Array, fma
from bnn_deploy.exact.operation import Operation
from bnn_deploy.exact.pack import unpack_words
from bnn_deploy.exact.windows import windows

_LARGEST_EXACT = 2**24
# With more groups than this, one product after another is slower than all groups' terms side by side.
_MATRIX_GROUPS = 8


def packed_conv2d(operation: Operation, words: np.ndarray, weight: np.ndarray, scale: Array, shift: Array) -> Array:
    """``bnn.packed_conv2d``: ``fma(dot, scale[o], shift[o])``; NHWC."""
    terms = int(np.prod(operation.integers("kernel_shape"))) * operation.integer("in_channels")
    number = np.float32 if terms <= _LARGEST_EXACT else np.float64
    dot = np.zeros(operation.shape, number)
    for _, product in _tap_products(operation, words, weight, number):
        dot += product
    return fma(dot.astype(np.float32), scale, shift)


def packed_tap_scaled_conv2d(
    operation: Operation, words: np.ndarray, weight: np.ndarray, scale: Array, shift: Array
) -> Array:
    """``bnn.packed_tap_scaled_conv2d``: ``t = fma(dot[tap], scale[o, tap], t)`` tap by tap, then ``t + shift[o]``."""
    total = np.zeros(operation.shape, np.float32)
    for tap, product in _tap_products(operation, words, weight, np.float32):
        total = fma(product, scale[:, tap], total)
    return total + shift


def packed_linear(operation: Operation, words: np.ndarray, weight: np.ndarray, scale: Array, shift: Array) -> Array:
    """``bnn.packed_linear`` along the last axis: ``fma(dot, scale[o], shift[o])``."""
    features = operation.integer("in_features")
    number = np.float32 if features <= _LARGEST_EXACT else np.float64
    x: np.ndarray = unpack_words(words, features, bool(operation.integer("ternary"))).astype(number, copy=False)
    dot: np.ndarray = x.reshape(-1, features) @ unpack_bits(weight, features).astype(number).T
    return fma(dot.astype(np.float32), scale, shift).reshape(operation.shape)


def _tap_products(
    operation: Operation, words: np.ndarray, weight: np.ndarray, number: type
) -> Iterator[tuple[int, np.ndarray]]:
    """Each tap's dot products, float32 (N, Ho, Wo, O); taps outside the image contribute 0."""
    channels, groups = operation.integer("in_channels"), operation.integer("group")
    kernel, strides, pads = (operation.integers(name) for name in ("kernel_shape", "strides", "pads"))
    x: np.ndarray = unpack_words(words, channels, bool(operation.integer("ternary"))).astype(number, copy=False)
    taps, own = kernel[0] * kernel[1], channels // groups
    signs: np.ndarray = unpack_bits(weight, taps * own).astype(number)
    # (taps, groups, channels of a group, outputs of a group)
    matrices = signs.reshape(groups, len(weight) // groups, taps, own).transpose(2, 0, 3, 1)
    for tap, window in enumerate(windows(x, kernel, strides, pads)):
        yield tap, _product(window, np.ascontiguousarray(matrices[tap])).reshape(operation.shape)


def _product(x: Array, matrices: Array) -> Array:
    groups, own, outputs = matrices.shape
    pixels = np.ascontiguousarray(x).reshape(-1, groups, own)
    if groups <= _MATRIX_GROUPS:
        return np.concatenate([pixels[:, group] @ matrices[group] for group in range(groups)], axis=1)
    result = pixels[:, :, :1] * matrices[:, 0]
    for channel in range(1, own):
        result += pixels[:, :, channel, None] * matrices[:, channel]
    return result.reshape(len(pixels), groups * outputs)
