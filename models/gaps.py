"""Finds where a threshold can stand so that no value lies near it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Shares of the values that a threshold must leave on either side, tried in this order: both outcomes should be common.
_TAILS = (0.25, 0.1, 0.03)
# Beyond the extreme values a threshold may stand this far, in units of the values' root mean square.
_BEYOND = 0.25


def gap_shift(values: NDArray[np.float32], boundaries: Sequence[float], margin: float) -> NDArray[np.float32]:
    """The amount to add to each row so that all boundaries fall into wide gaps between the row's values.

    Args:
        values: (C, M) float32, all values of C channels.
        boundaries: where the activation's output changes, e.g. (-0.5, 0.5); the shifted row must keep away from each.
        margin: distance from a boundary that is wide enough, in the unit of the values.

    Returns:
        (C,) float32. The widest gap between the row's quartiles is taken if it leaves ``margin``, else that of a larger
        middle part, at last the widest of all, the empty space beyond the extremes included.
    """
    ordered = np.sort(values, axis=1)
    # Value v plus shift s meets boundary b where -s = v - b: one set of forbidden positions for all boundaries.
    forbidden = np.concatenate([ordered - np.float32(boundary) for boundary in boundaries], axis=1)
    if len(boundaries) > 1:
        forbidden.sort(axis=1)
    beyond = _BEYOND * np.maximum(np.sqrt(np.square(values).mean(axis=1, keepdims=True)), 4 * margin)
    forbidden = np.concatenate([forbidden[:, :1] - 2 * beyond, forbidden, forbidden[:, -1:] + 2 * beyond], axis=1)
    gaps = np.diff(forbidden, axis=1)
    middles = (forbidden[:, 1:] + forbidden[:, :-1]) / 2

    chosen = gaps.argmax(axis=1)
    last = ordered.shape[1] - 1
    for tail in reversed(_TAILS):
        low, high = ordered[:, round(tail * last), None], ordered[:, round((1 - tail) * last), None]
        inner = np.where((middles >= low) & (middles <= high), gaps, 0)
        chosen = np.where(inner.max(axis=1) >= 2 * margin, inner.argmax(axis=1), chosen)
    return -np.take_along_axis(middles, chosen[:, None], axis=1)[:, 0].astype(np.float32)
