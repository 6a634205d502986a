"""The one packing convention of the project, in numpy: bit 1 is +1, bit 0 is -1, least significant bit first.

Element ``k`` of a row sits in byte ``k // 8`` at bit ``k % 8``. Rows are padded with 0 bits to whole bytes. Words are
little-endian groups of these bytes, so element ``k`` is also bit ``k % 32`` of 32-bit word ``k // 32``.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.errors import InputError


def packed_size(count: int) -> int:
    """Bytes that a row of ``count`` elements takes: ``ceil(count / 8)``."""
    return -(-count // 8)


def pack_bits(signs: np.ndarray) -> np.ndarray:
    """Pack signs along the last axis.

    Args:
        signs: ``(..., K)``, bool (True is +1) or any numeric dtype holding only +1 and -1.

    Returns:
        uint8 ``(..., ceil(K / 8))``.

    Raises:
        InputError: a value is neither +1 nor -1 (0 and NaN included), or the array has no axis.
    """
    signs = np.asarray(signs)
    if signs.ndim == 0:
        raise InputError("pack_bits needs an array with at least one axis, got a scalar; give it rows of +1 and -1.")
    if signs.dtype != np.bool_:
        positive = signs == 1
        wrong = ~(positive | (signs == -1))
        if wrong.any():
            raise InputError(
                f"pack_bits packs only +1 and -1, found {signs[wrong].flat[0]!s} ({int(wrong.sum())} such values); "
                "binarize the array first, or give it as bool."
            )
        signs = positive
    return np.packbits(signs, axis=-1, bitorder="little")


def unpack_bits(packed: np.ndarray, count: int) -> np.ndarray:
    """Unpack the first ``count`` signs of every row.

    Args:
        packed: uint8 ``(..., B)``.
        count: elements per row, at most ``8 * B``.

    Returns:
        int8 ``(..., count)`` of +1 and -1.

    Raises:
        InputError: another dtype than uint8, or rows too short for ``count``.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim == 0:
        raise InputError(f"unpack_bits needs rows of uint8, got {packed.dtype} of shape {packed.shape}.")
    if not 0 <= count <= 8 * packed.shape[-1]:
        raise InputError(f"unpack_bits cannot take {count} elements out of rows of {packed.shape[-1]} bytes.")
    bits = np.unpackbits(packed, axis=-1, count=count, bitorder="little").view(np.int8)
    signs: np.ndarray = 2 * bits - np.int8(1)
    return signs


def as_words(packed: np.ndarray) -> np.ndarray:
    """See packed bytes as 32-bit words; rows are padded with zero bytes to whole words.

    Args:
        packed: uint8 ``(..., B)``.

    Returns:
        little-endian uint32 ``(..., ceil(B / 4))``; a view when the rows need no padding and are contiguous.

    Raises:
        InputError: another dtype than uint8.
    """
    packed = np.asarray(packed)
    if packed.dtype != np.uint8 or packed.ndim == 0:
        raise InputError(f"as_words needs rows of uint8, got {packed.dtype} of shape {packed.shape}.")
    missing = -packed.shape[-1] % 4
    if missing:
        packed = np.pad(packed, [(0, 0)] * (packed.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(packed).view(np.dtype("<u4"))


def plane_axis(rank: int) -> int:
    """The axis of the two planes in the words of a three-valued tensor of ``rank`` dimensions (2 or more).

    It comes after that of an image's rows, so that a block of rows of words lies in one piece.
    """
    return min(2, rank - 1)
