"""What is special about NVIDIA's Jetson boards: power mode and Jetson Linux."""

from __future__ import annotations

from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.doctor.check import Check, Status


def is_jetson(state: SystemState) -> bool:
    """Something on the board says so: its name, its system or its power modes."""
    named = any(word in (state.board or "").lower() for word in ("jetson", "nvidia", "quill"))
    return named or state.jetson_linux is not None or state.power_mode is not None


def check_jetson(state: SystemState) -> list[Check]:
    """Rows for a Jetson; none for other boards."""
    if not is_jetson(state):
        return []
    return [_check_power_mode(state), _check_jetson_linux(state)]


def _check_power_mode(state: SystemState) -> Check:
    if state.power_mode is None:
        return Check("power mode", Status.WARNING, "unknown", "Run there to see it: sudo nvpmodel -q")
    if not state.power_mode.upper().startswith("MAXN"):
        advice = (
            "For full speed, choose the mode MAXN if /etc/nvpmodel.conf has one (else that with the most watts) with "
            "`sudo nvpmodel -m NUMBER`, then fix the clocks with `sudo jetson_clocks`."
        )
        return Check("power mode", Status.WARNING, state.power_mode, advice)
    return Check("power mode", Status.OK, state.power_mode)


def _check_jetson_linux(state: SystemState) -> Check:
    return Check("Jetson Linux", Status.OK, state.jetson_linux or "unknown: /etc/nv_tegra_release is missing")
