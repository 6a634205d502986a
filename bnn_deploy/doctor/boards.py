"""Every check of every board of a device."""

from __future__ import annotations

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import Device
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status
from bnn_deploy.doctor.gpu import check_gpu
from bnn_deploy.doctor.jetson import check_jetson
from bnn_deploy.doctor.operating_system import check_glibc, check_system
from bnn_deploy.doctor.processor import check_bundle, check_instructions, check_target
from bnn_deploy.doctor.report import BoardChecks, DoctorReport
from bnn_deploy.doctor.space import check_disk, check_memory
from bnn_deploy.doctor.speed import check_clock, check_governor, check_temperature, check_throttling
from bnn_deploy.errors import DeviceError


def examine_device(device: Device, bundle: Bundle | None = None) -> DoctorReport:
    """Ask the boards of a device for their state, and check it.

    Args:
        device: where to look.
        bundle: what is to run there, if known.

    Returns:
        the checks of each board.

    Raises:
        DeviceError: it cannot be reached, or no board of it answers.
        ToolError: a program that the device needs is missing or failed.
        BundleError: the bundle is damaged.
    """
    states = device.system_states()
    if not states:
        raise DeviceError(f"The device {device.name} has no board that tells its state; connect one and try again.")
    boards = []
    for place, state in states.items():
        if isinstance(state, DeviceError):
            advice = str(state).removeprefix(f"{place}: ")
            boards.append(BoardChecks(place, (Check("board", Status.ERROR, "cannot be examined", advice),)))
        else:
            # The boards of a fleet often have the same host name.
            name = device.name if len(states) == 1 else f"{state.host} at {place}" if state.host else place
            boards.append(BoardChecks(name, tuple(check_board(state, bundle))))
    return DoctorReport(device.name, tuple(boards))


def check_board(state: SystemState, bundle: Bundle | None = None) -> list[Check]:
    """All rows for a board in this state.

    Raises:
        BundleError: the bundle's ``model.so`` is damaged.
    """
    system = check_system(state)
    checks = [_reached(state), system]
    if system.status is not Status.ERROR:
        # What follows would only repeat that there is no target for this board.
        checks += [check_instructions(state), check_target(state)]
    if bundle is not None:
        checks.append(check_bundle(state, bundle))
    checks += [check_glibc(state, bundle), check_memory(state, bundle), check_disk(state, bundle)]
    checks += [check_governor(state), check_clock(state)]
    throttling = check_throttling(state)
    checks += [throttling] if throttling is not None else []
    return [*checks, check_temperature(state), *check_jetson(state), *check_gpu(state)]


def _reached(state: SystemState) -> Check:
    found = state.board or f"a machine of {len(state.processors)} processors that does not tell its name"
    if state.emulated:
        advice = "Good for checking results; what an emulator measures is never a latency."
        return Check("board", Status.OK, f"{found}, emulated by qemu", advice)
    return Check("board", Status.OK, found)
