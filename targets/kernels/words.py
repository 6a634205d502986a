"""Words of bits: how many hold the channels of a pixel."""

from __future__ import annotations

WORD_BITS = 32


def ceil_divide(dividend: int, divisor: int) -> int:
    """Smallest whole number not below ``dividend / divisor``."""
    return -(-dividend // divisor)


def word_count(channels: int) -> int:
    """32-bit words that hold one bit per channel."""
    return ceil_divide(channels, WORD_BITS)
