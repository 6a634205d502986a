"""Reads the profile that a bundle's runner writes: JSON from another machine, so nothing of it is taken on trust.

docs/profile.md describes the fields, docs/schemas/runner_profile.schema.json is for other programs.
"""

from __future__ import annotations

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.json_fields import JsonFields
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError

FORMAT = "bnn_deploy.runner_profile"
FORMAT_VERSION = 1
MOST_STEPS = 1_000_000
COMPILE_AGAIN = "compile the bundle again with this bnn-deploy"


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
    where = f"{board}: the profile by the runner of {bundle.path}"
    fields = JsonFields.parse(text, where, COMPILE_AGAIN)
    if fields.take("format") != FORMAT:
        raise fields.fail("format", f'"{FORMAT}"')
    if fields.whole("format_version") != FORMAT_VERSION:
        raise fields.fail("format_version", str(FORMAT_VERSION))
    kernel_set = fields.text("kernel_set") or ""
    _check_steps(fields, bundle, kernel_set)
    total_seconds = _seconds(fields, "total_seconds")
    step_seconds = _seconds(fields, "step_seconds")
    repeat = fields.whole("repeat", smallest=1)
    if total_seconds.shape != (repeat,):
        raise fields.fail("total_seconds", f"a list of {repeat} numbers")
    if step_seconds.shape != (repeat, len(bundle.steps)):
        raise fields.fail("step_seconds", f"{repeat} lists of {len(bundle.steps)} numbers")
    return DeviceProfile(
        board=board,
        step_seconds=step_seconds,
        total_seconds=total_seconds,
        emulated=fields.truth("emulated") or emulated,
        kernel_set=kernel_set,
        before=SystemState.from_json(fields.take("system_before"), f"{where}: system_before"),
        after=SystemState.from_json(fields.take("system_after"), f"{where}: system_after"),
        peak_memory_bytes=fields.whole("peak_memory_bytes"),
        copy_bytes_per_second=fields.number("copy_bytes_per_second"),
        # Runners of before ran on processors only, and do not say so.
        gpu=None if fields.take("gpu") is None else GpuInformation.from_json(fields.take("gpu"), f"{where}: gpu"),
    )


def _check_steps(fields: JsonFields, bundle: Bundle, kernel_set: str) -> None:
    try:
        expected = [(step.kernel, step.layer, step.kind) for step in bundle.steps_of(kernel_set)]
    except BundleError as error:
        names = ", ".join(map(repr, bundle.kernel_sets))
        raise fields.fail("kernel_set", names) from error
    steps = fields.objects("steps", MOST_STEPS)
    found = [(step.take("kernel"), step.take("layer"), step.take("kind")) for step in steps]
    if found != expected:
        raise fields.fail("steps", f"the {len(expected)} kernels of the bundle")


def _seconds(fields: JsonFields, name: str) -> np.ndarray:
    """A float64 array of the numbers in (lists in) a list."""
    try:
        array = np.asarray(fields.take(name))
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    # Text, booleans and null among the numbers make it another kind.
    if array.dtype.kind not in "if" or not (np.isfinite(array).all() and (array >= 0).all()):
        raise fields.fail(name, "lists of equally many numbers of seconds")
    return array.astype(np.float64)
