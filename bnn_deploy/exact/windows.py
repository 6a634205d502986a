"""What each tap of a kernel sees of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def padded(x: np.ndarray, pads: Sequence[int], value: float = 0.0) -> np.ndarray:
    """An NHWC image with (top, left, bottom, right) pixels of ``value`` around it."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def window_count(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int] = (1, 1)
) -> tuple[int, int]:
    """Rows and columns of windows in a padded image of ``size``."""
    rows, columns = (
        (extent - (taps - 1) * apart - 1) // step + 1
        for extent, taps, apart, step in zip(size, kernel, dilation, strides, strict=True)
    )
    return rows, columns


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    value: float = 0.0,
) -> Iterator[np.ndarray]:
    """For every tap, row by row: what it reads at each output, a view (N, Ho, Wo, C) of the padded NHWC image."""
    image = padded(x, pads, value)
    rows, columns = window_count(image.shape[1:3], kernel, strides, dilation)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            top, left = row * dilation[0], column * dilation[1]
            yield image[
                :,
                top : top + (rows - 1) * strides[0] + 1 : strides[0],
                left : left + (columns - 1) * strides[1] + 1 : strides[1],
            ]
