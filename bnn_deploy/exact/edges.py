"""Numbers at which a comparison may go wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SUBNORMAL = np.float32(2.0**-149)
_COMMON = (0.0, -0.0, float(_SUBNORMAL), -float(_SUBNORMAL), 1.0, -1.0, 0.5, -0.5, 1000.0, -1000.0)


def edge_values(thresholds: Sequence[np.ndarray], shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An array whose every channel walks through the numbers around its thresholds, from a place of its own.

    Args:
        thresholds: float32, each of a shape that broadcasts to ``shape``.
        shape: of the result, channels last.
        rng: draws where each channel begins.

    Returns:
        float32 of ``shape``.
    """
    choices = []
    for threshold in thresholds:
        bound = np.broadcast_to(np.asarray(threshold, np.float32), shape)
        choices += [bound, np.nextafter(bound, np.float32(np.inf)), np.nextafter(bound, np.float32(-np.inf))]
    choices += [np.broadcast_to(np.float32(number), shape) for number in _COMMON]
    channels = shape[-1]
    places = np.arange(int(np.prod(shape[:-1])))[:, None] + rng.integers(len(choices), size=channels)
    chosen = (places % len(choices)).reshape(shape)
    result = np.empty(shape, np.float32)
    for index, numbers in enumerate(choices):
        np.copyto(result, numbers, where=chosen == index)
    return result
