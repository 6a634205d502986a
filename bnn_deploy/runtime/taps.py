"""Taps: which results of steps a run copies out and replaces; checked alike for all devices. bnn_model.h describes them."""

from __future__ import annotations

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.tensor_table import TAP_NUMBERS
from bnn_deploy.errors import InputError

OWN_TAPS = "take them from this bundle's own tensors.json"


def checked_taps(
    bundle: Bundle, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None, batches: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check what a run with taps is given, as far as the manifest tells; the device checks the places in memory.

    Args:
        bundle: whose steps they are.
        taps: int64 (taps, 9), rows as in bnn_model.h.
        total_bytes: bytes of all values of one batch, from the first to the end of the last.
        forced: uint8 (batches, total_bytes), or None to force nothing.
        batches: that run.

    Returns:
        the taps and the forced values in C order.

    Raises:
        InputError: another dtype or shape, steps that the bundle does not have, taps that force without values, or values of
            other sizes.
    """
    if taps.dtype != np.int64 or taps.ndim != 2 or taps.shape[1] != TAP_NUMBERS:
        raise InputError(
            f"Taps are int64 of shape (taps, {TAP_NUMBERS}), found {taps.dtype} of shape {taps.shape}; {OWN_TAPS}."
        )
    steps = bundle.manifest["steps"]
    needed = 0
    for index, (_, step, _, _, _, _, size, offset, _) in enumerate(taps.tolist()):
        if not 0 <= step < len(steps):
            raise InputError(f"Tap {index} is of step {step}, and {bundle.path} has {len(steps)} steps; {OWN_TAPS}.")
        needed = max(needed, offset + steps[step].get("blocks", 1) * size)
    if total_bytes != needed:
        raise InputError(f"The {len(taps)} taps take {needed} bytes of values, and not {total_bytes}; {OWN_TAPS}.")
    if forced is None and taps[:, -1].any():
        raise InputError("Some taps force values, and no values were given; give a row of bytes for each batch.")
    if forced is not None and (forced.dtype != np.uint8 or forced.shape != (batches, total_bytes)):
        raise InputError(
            f"The values to force are {forced.dtype} of shape {forced.shape}, expected uint8 of shape {(batches, total_bytes)}: a "
            "row for each batch."
        )
    return np.ascontiguousarray(taps), None if forced is None else np.ascontiguousarray(forced)
