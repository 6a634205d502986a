"""Reads the profile that a bundle's runner writes: JSON from another machine, so nothing of it is taken on trust.

docs/profile.md describes the fields, docs/schemas/runner_profile.schema.json is for other programs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.checked_fields import Fields, Unfit, choice, flag, number, printable_text, text, whole
from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import SystemState, device_fields
from bnn_deploy.errors import BundleError

FORMAT = "bnn_deploy.runner_profile"
FORMAT_VERSION = 1
MOST_STEPS = 1_000_000


def read_profile(content: str, bundle: Bundle, board: str, *, emulated: bool = False) -> DeviceProfile:
    """The profile in a runner's JSON.

    Args:
        content: what the runner wrote.
        bundle: the bundle that it ran.
        board: name of the board.
        emulated: the caller knows that this board is an emulator.

    Raises:
        DeviceError: it is not a profile of this bundle.
    """
    fields = device_fields(content, f"{board}: the profile by the runner of {bundle.path}")
    fields.take("format", choice(FORMAT))
    fields.take("format_version", choice(FORMAT_VERSION))
    kernel_set = fields.find("kernel_set", printable_text()) or ""
    _check_steps(fields, bundle, kernel_set)
    total_seconds = fields.take("total_seconds", _seconds)
    step_seconds = fields.take("step_seconds", _seconds)
    repeat = fields.take("repeat", whole(1))
    if total_seconds.shape != (repeat,):
        raise fields.refusal("total_seconds", f"a list of {repeat} numbers")
    if step_seconds.shape != (repeat, len(bundle.steps)):
        raise fields.refusal("step_seconds", f"{repeat} lists of {len(bundle.steps)} numbers")
    return DeviceProfile(
        board=board,
        step_seconds=step_seconds,
        total_seconds=total_seconds,
        emulated=fields.take("emulated", flag) or emulated,
        kernel_set=kernel_set,
        before=SystemState.from_fields(fields.inner("system_before")),
        after=SystemState.from_fields(fields.inner("system_after")),
        peak_memory_bytes=fields.find("peak_memory_bytes", whole()),
        copy_bytes_per_second=fields.find("copy_bytes_per_second", number()),
        # Runners of before ran on processors only, and do not say so.
        gpu=GpuInformation.from_fields(fields.inner("gpu")) if fields.has("gpu") else None,
    )


def _check_steps(fields: Fields, bundle: Bundle, kernel_set: str) -> None:
    try:
        expected = [(step.kernel, step.layer, step.kind) for step in bundle.steps_of(kernel_set)]
    except BundleError as error:
        names = ", ".join(map(repr, bundle.kernel_sets))
        raise fields.refusal("kernel_set", names) from error
    steps = fields.objects("steps", MOST_STEPS)
    found = [tuple(step.take(name, text) for name in ("kernel", "layer", "kind")) for step in steps]
    if found != expected:
        raise fields.refusal("steps", f"the {len(expected)} kernels of the bundle")


def _seconds(value: object) -> NDArray[np.float64]:
    """A rule: an array of the numbers in (lists in) a list."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    # Text, booleans and null among the numbers make it another kind.
    if array.dtype.kind not in "if" or not (np.isfinite(array).all() and (array >= 0).all()):
        raise Unfit(value, "lists of equally many numbers of seconds")
    return array.astype(np.float64)
