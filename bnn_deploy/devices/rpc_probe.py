"""The state of a board behind TVM's RPC, when no bundle is at hand."""

from __future__ import annotations

from bnn_deploy.devices.probe import probe_library
from bnn_deploy.devices.rpc_board import RpcBoard
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError

# RPC does not tell the machine, but a library for another one does no harm: it is refused. Most boards are of the first.
ARCHITECTURES = ("arm64", "x86_64")


def board_state(board: RpcBoard) -> SystemState:
    """The state of a connected board.

    Raises:
        DeviceError: it is of an unknown architecture, failed, or told nonsense.
        ToolError: ziglang, which compiles the probe, is missing or failed.
    """
    for architecture in ARCHITECTURES:
        try:
            board.load_library(probe_library(architecture), f"probe-{architecture}")
        except BundleError:
            continue
        return board.state()
    raise DeviceError(
        f"{board.name}: loads no library for {' or '.join(ARCHITECTURES)} and glibc 2.17 or newer; use a 64-bit system there."
    )
