"""Memory and disk of a board, against what a bundle takes there."""

from __future__ import annotations

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status

# Without a bundle to ask: the models here take 15 to 60 MB while they run, and their runners 10 to 50 MB of disk.
COMFORTABLE_BYTES = 100 * 10**6


def check_memory(state: SystemState, bundle: Bundle | None) -> Check:
    """Memory that programs can still get, against the network's weights, activations and one thread's workspace."""
    needed = None if bundle is None else bundle.peak_bytes
    return _check_space("memory", state.memory_available_bytes, needed, "Close other programs there")


def check_disk(state: SystemState, bundle: Bundle | None) -> Check:
    """Free disk space, against the size of the bundle's runner."""
    needed = None if bundle is None else bundle.manifest["files"][bundle.runner.name]["bytes"]
    return _check_space("disk", state.disk_available_bytes, needed, "Free some space there")


def _check_space(name: str, available: int | None, needed: int | None, action: str) -> Check:
    if available is None:
        return Check(name, Status.OK, "unknown")
    found = f"{available / 1e6:,.0f} MB free"
    if needed is None:
        if available < COMFORTABLE_BYTES:
            advice = f"{action}: the larger models take up to {COMFORTABLE_BYTES / 1e6:.0f} MB."
            return Check(name, Status.WARNING, found, advice)
        return Check(name, Status.OK, found)
    found = f"{found}, the bundle takes {needed / 1e6:,.1f} MB"
    if available < needed:
        return Check(name, Status.ERROR, found, f"{action}: the bundle does not fit.")
    return Check(name, Status.OK, found)
