"""What arrays a network takes: checked alike whether it runs in this process or on another device."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from bnn_deploy.errors import InputError
from bnn_deploy.plan import TensorSpecification

# One batch: enough to keep call overhead small, little enough that a reference's activations stay in memory, and that a slow
# board or connection answers before a time-out.
BATCH_SAMPLES = 64
BATCH_BYTES = 4 * 2**20


def checked_arrays(
    arrays: Sequence[np.ndarray], specifications: Sequence[TensorSpecification]
) -> tuple[list[np.ndarray], int]:
    """Check the arrays given to a network.

    Args:
        arrays: one per input. The leading dimension is any multiple of the specification's, the same multiple for all.
        specifications: the network's inputs.

    Returns:
        the arrays in C order and native byte order, and how many batches they hold.

    Raises:
        InputError: a wrong number of arrays, dtype or shape, or no batch at all.
    """
    if len(arrays) != len(specifications):
        raise InputError(f"The network takes {len(specifications)} input arrays, found {len(arrays)}.")
    checked, counts = [], []
    for array, expected in zip(arrays, specifications, strict=True):
        array = np.asarray(array)
        dtype = np.dtype(expected.dtype)
        if array.dtype.newbyteorder("=") != dtype:
            raise InputError(f"Input {expected.name!r} is {array.dtype}, expected {dtype}; convert it with astype.")
        batch = expected.shape[0]
        fits = array.ndim == len(expected.shape) and array.shape[1:] == expected.shape[1:]
        if not fits or array.shape[0] == 0 or array.shape[0] % batch != 0:
            raise InputError(
                f"Input {expected.name!r} has shape {array.shape}, expected {expected.shape} or a multiple of its "
                "first dimension."
            )
        checked.append(np.ascontiguousarray(array, dtype=dtype))
        counts.append(array.shape[0] // batch)
    if len(set(counts)) != 1:
        raise InputError(f"The input arrays hold different numbers of batches: {counts}.")
    return checked, counts[0]


def check_threads(threads: int) -> None:
    """Raises InputError unless ``threads`` is a whole number from 1 to 256 (BNN_MAX_THREADS of bnn_model.h)."""
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= 256:
        raise InputError(f"The number of threads must be a whole number from 1 to 256, found {threads!r}.")


def batch_size(image_shape: tuple[int, ...], unit: int) -> int:
    """Images per batch: a multiple of ``unit``, at most 64 images and 4 MiB unless one ``unit`` is more."""
    wanted = min(BATCH_SAMPLES, BATCH_BYTES // (4 * prod(image_shape)))
    return max(1, wanted // unit) * unit
