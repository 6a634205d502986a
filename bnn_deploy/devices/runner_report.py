"""Reads the profile that a bundle's runner writes: JSON from another machine, so nothing of it is taken on trust."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bnn_deploy.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.errors import DeviceError


def read_profile(text: str, bundle: Bundle, board: str, *, emulated: bool = False) -> DeviceProfile:
    """The profile in a runner's JSON.

    Args:
        text: what the runner wrote.
        bundle: the bundle that it ran.
        board: name of the board.
        emulated: the caller knows that this board is an emulator.

    Raises:
        DeviceError: it is not a profile of this bundle.
    """
    try:
        report: dict[str, Any] = json.loads(text)
        step_seconds = np.asarray(report["step_seconds"], dtype=np.float64)
        total_seconds = np.asarray(report["total_seconds"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DeviceError(f"{board}: the runner of {bundle.path} wrote no valid profile; run it again.") from error
    if step_seconds.shape != (len(total_seconds), len(bundle.steps)):
        raise DeviceError(
            f"{board}: the runner's profile has times of shape {step_seconds.shape}, expected "
            f"{(len(total_seconds), len(bundle.steps))} of {bundle.path}; compile the bundle again."
        )
    return DeviceProfile(board, step_seconds, total_seconds, emulated)
