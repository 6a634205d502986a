"""Independent references for the kernels: plain loops over taps on -1, 0, +1 integers, no bits."""

from __future__ import annotations

import numpy as np

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification


def random_weights(random: np.random.Generator, layer: ConvolutionSpecification) -> tuple[np.ndarray, np.ndarray]:
    """+-1 weights int64 (O, kh, kw, C/group), and the same packed as in ONNX: uint8 (O, ceil(K/8))."""
    shape = (layer.out_channels, *layer.kernel_shape, layer.in_channels // layer.group)
    signs = random.integers(0, 2, shape) * 2 - 1
    return signs, np.packbits(signs.reshape(layer.out_channels, -1) > 0, axis=1, bitorder="little")


def random_values(random: np.random.Generator, layer: ConvolutionSpecification) -> np.ndarray:
    """Activations int64 (N, H, W, C) of -1, +1, and 0 when ternary."""
    shape = (layer.batch, layer.height, layer.width, layer.in_channels)
    return random.integers(-1, 2, shape) if layer.ternary else random.integers(0, 2, shape) * 2 - 1


def pack_channels(bits: np.ndarray) -> np.ndarray:
    """bool (..., C) -> uint32 (..., ceil(C/32)), bit k of word j is channel 32 j + k."""
    words = -(-bits.shape[-1] // 32)
    padded = np.zeros((*bits.shape[:-1], 32 * words), np.uint64)
    padded[..., : bits.shape[-1]] = bits
    places = np.uint64(1) << np.arange(32, dtype=np.uint64)
    return (padded.reshape(*bits.shape[:-1], words, 32) * places).sum(-1).astype(np.uint32)


def sign_words(x: np.ndarray, threshold: np.ndarray, zero: int) -> np.ndarray:
    """What sign_pack makes of NHWC ``x``: words, or with ``zero`` 0 the planes of nonzero and of positive signs."""
    above, below = x > threshold, x < threshold
    if zero == 0:
        return np.stack([pack_channels(above | below), pack_channels(above)], axis=2)
    return pack_channels(above if zero == -1 else x >= threshold)


def pack_values(values: np.ndarray, layer: ConvolutionSpecification) -> np.ndarray:
    """Activations as the kernel's X."""
    positive = pack_channels(values > 0)
    return np.stack([pack_channels(values != 0), positive], axis=2) if layer.ternary else positive


def tap_dots(values: np.ndarray, signs: np.ndarray, layer: ConvolutionSpecification) -> np.ndarray:
    """int64 (taps, N, Ho, Wo, O): every tap's dot product, taps row by row."""
    top, left, bottom, right = layer.pads
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
    (kernel_rows, kernel_columns), (row_step, column_step) = layer.kernel_shape, layer.strides
    rows = (padded.shape[1] - kernel_rows) // row_step + 1
    columns = (padded.shape[2] - kernel_columns) // column_step + 1
    channels, outputs = layer.in_channels // layer.group, layer.out_channels // layer.group
    dots = np.zeros((kernel_rows * kernel_columns, len(values), rows, columns, layer.out_channels), np.int64)
    for i in range(kernel_rows):
        for j in range(kernel_columns):
            seen = padded[:, i : i + row_step * rows : row_step, j : j + column_step * columns : column_step]
            seen = seen[:, :rows, :columns]
            for g in range(layer.group):
                own = slice(g * outputs, (g + 1) * outputs)
                inputs = seen[..., g * channels : (g + 1) * channels]
                dots[i * kernel_columns + j, ..., own] = inputs @ signs[own, i, j].T
    return dots


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 ``a * b + c`` rounded once.

    The product of two float32 is exact in float64. The sum is rounded to odd in float64 (its last bit is set when it
    is inexact), which makes the final rounding to float32 right because 53 >= 2 * 24 + 2 bits.
    """
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    product, addend = np.broadcast_arrays(product, addend)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = (total.view(np.int64) & 1) == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & even, np.nextafter(total, toward), total).astype(np.float32)


def convolution(
    values: np.ndarray, signs: np.ndarray, scale: np.ndarray, shift: np.ndarray, layer: ConvolutionSpecification
) -> np.ndarray:
    """Y float32 (N, Ho, Wo, O) of the layer; ``scale`` (O,), or (O, taps) when tap scaled."""
    dots = tap_dots(values, signs, layer)
    if not layer.tap_scaled:
        return fused_multiply_add(dots.sum(0).astype(np.float32), scale, shift)
    total = np.zeros(dots.shape[1:], np.float32)
    for tap, dot in enumerate(dots):
        total = fused_multiply_add(dot.astype(np.float32), scale[:, tap], total)
    return total + shift
