"""The probe as a library that TVM's RPC server can load, for when no bundle is at hand."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from threading import Lock

from bnn_deploy.codegen.linker import link_probe_library
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.devices.rpc_board import RpcBoard
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError

# RPC does not tell the machine, but a library for another one does no harm: it is refused. Most boards are of the first.
ARCHITECTURES = ("arm64", "x86_64")
_lock = Lock()


def board_state(board: RpcBoard) -> SystemState:
    """The state of a connected board.

    Raises:
        DeviceError: it is of an unknown architecture, failed, or told nonsense.
        ToolError: ziglang, which compiles the probe, is missing or failed.
    """
    for architecture in ARCHITECTURES:
        with _lock:
            library = _linked(architecture)
        try:
            board.load_library(library, f"probe-{architecture}")
        except BundleError:
            continue
        return board.state()
    raise DeviceError(
        f"{board.name}: loads no library for {' or '.join(ARCHITECTURES)} and glibc 2.17 or newer; use a 64-bit system there."
    )


@cache
def _linked(architecture: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bnn-deploy-probe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return link_probe_library(folder, architecture, ObjectCache(cache_folder()))
