"""The probe: what tells a machine's state when no bundle is at hand, as a static program of 70 kB and as a library."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Lock

from bnn_deploy.codegen.linker import PROBE_TARGETS, link_probe, link_probe_library
from bnn_deploy.codegen.object_cache import ObjectCache, cache_folder
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import DeviceError, ToolError
from bnn_deploy.runtime.processor import MACHINES

# A probe takes milliseconds, and at most two seconds where a program that it asks hangs.
PROBE_SECONDS = 30.0
_lock = Lock()


def probe_program(machine: str) -> Path:
    """The probe for a machine; it exists until this process ends.

    Args:
        machine: what ``uname -m`` says there: "x86_64", "aarch64", "armv7l" …

    Raises:
        DeviceError: there is no probe for such machines.
        ToolError: ziglang, which compiles it, is missing or failed.
    """
    name = machine.lower()
    architecture = MACHINES.get(name, "arm" if name.startswith("arm") and not name.endswith("b") else None)
    if architecture is None:
        raise DeviceError(
            f"The machine is {machine!r}; bnn-deploy knows machines of {', '.join(PROBE_TARGETS)}, use one of them."
        )
    return _made(link_probe, architecture)


def probe_library(architecture: str) -> Path:
    """The probe as a library that TVM's RPC server loads; it exists until this process ends.

    Args:
        architecture: "arm64" or "x86_64".

    Raises:
        ToolError: ziglang, which compiles it, is missing or failed.
    """
    return _made(link_probe_library, architecture)


def _made(link: Callable[[Path, str, ObjectCache], Path], architecture: str) -> Path:
    # Threads that ask several boards at once share one.
    with _lock:
        return _linked(link, architecture)


@cache
def _linked(link: Callable[[Path, str, ObjectCache], Path], architecture: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bnn-deploy-probe-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return link(folder, architecture, ObjectCache(cache_folder()))


def run_probe(command: list[str], board: str) -> SystemState:
    """The state that a probe tells which runs as a process of this machine.

    Args:
        command: the probe, or an emulator and the probe.
        board: how errors name the machine.

    Raises:
        ToolError: it failed.
        DeviceError: it told nonsense.
    """
    try:
        result = subprocess.run(
            command, env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(
            f"The probe of {board} failed: {error}; see whether `bnn-deploy doctor` finds fault."
        ) from error
    return SystemState.from_json(result.stdout.decode(errors="replace"), f"the state of {board}")
