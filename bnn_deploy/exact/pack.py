"""Signs as words: comparisons packed 32 to a word, and words taken apart again.

Bit k of word j is channel 32 j + k; tail bits are 0. Three-valued tensors are two planes, nonzero and positive, on an axis of
their own: axis 2, or the one before the words where there are fewer.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.bits import as_words, pack_bits, plane_axis
from bnn_deploy.exact.fma import Array
from bnn_deploy.exact.operation import Operation

# Values up to this round to 0.
_TERNARY_THRESHOLD = np.float32(0.5)


def pack_words(positive: np.ndarray) -> np.ndarray:
    """bool (…, C) -> uint32 (…, ceil(C / 32))."""
    return as_words(pack_bits(positive)).astype(np.uint32)


def pack_planes(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """bool (…, C) twice -> uint32 words with an axis of two planes."""
    words = [pack_words(negative | positive), pack_words(positive)]
    return np.stack(words, axis=plane_axis(positive.ndim))


def unpack_words(words: np.ndarray, channels: int, ternary: bool) -> np.ndarray:
    """Words -> float32 (…, channels) of -1 and +1, and 0 where three-valued, without the axis of planes."""
    data = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
    bits = np.unpackbits(data, axis=-1, count=channels, bitorder="little").astype(np.float32)
    if not ternary:
        signs: np.ndarray = 2 * bits - 1
        return signs
    axis = plane_axis(words.ndim - 1)
    nonzero, positive = np.moveaxis(bits, axis, 0)
    # A positive value whose plane of nonzero values says 0 counts as 0, as in the kernels.
    values: np.ndarray = nonzero * (2 * positive - 1)
    return values


def sign_pack(operation: Operation, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """``bnn.sign_pack``: NaN is above and below nothing."""
    zero = operation.integer("zero")
    if zero == 0:
        return pack_planes(x < threshold, x > threshold)
    return pack_words(x >= threshold if zero > 0 else x > threshold)


def ternary_pack(_: Operation, x: np.ndarray) -> np.ndarray:
    """``bnn.ternary_pack``."""
    return pack_planes(x < -_TERNARY_THRESHOLD, x > _TERNARY_THRESHOLD)


def float_sign(operation: Operation, x: Array, threshold: Array) -> Array:
    """``bnn.sign`` that stays float: -1, +1, or 0 at the threshold; NaN is -1, and 0 where there are three values."""
    zero = operation.integer("zero")
    above = x >= threshold if zero > 0 else x > threshold
    below = x < threshold if zero == 0 else ~above
    return np.subtract(above, below, dtype=np.float32)


def float_ternary(_: Operation, x: Array) -> Array:
    """``bnn.ternary`` that stays float."""
    above, below = x > _TERNARY_THRESHOLD, x < -_TERNARY_THRESHOLD
    signs: Array = np.subtract(above, below, dtype=np.float32)
    return signs


def shift_words(operation: Operation, x: np.ndarray) -> np.ndarray:
    """``bnn.shift_words``: each segment (first word, words, rows, columns) from another pixel, around the edges."""
    runs = []
    for first, count, rows, columns in operation.attributes["segments"]:
        runs.append(np.roll(x[..., first : first + count], (-rows, -columns), axis=(1, 2)))
    return np.concatenate(runs, axis=-1)
