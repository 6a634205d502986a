"""An arm64 machine emulated by qemu's user mode: proves correctness on the target's processor, and never its speed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.bundle.manifest import ProcessorEntry
from bnn_deploy.devices.base import TIMEOUT_SECONDS, Device, Session
from bnn_deploy.devices.probe import probe_program, run_probe
from bnn_deploy.devices.runner_process import RunnerProcessSession
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import BundleError, DeviceError, ToolError
from bnn_deploy.progress import ReportProgress, quiet

PROGRAMS = ("qemu-aarch64", "qemu-aarch64-static")


class QemuDevice(Device):
    """Runs the bundle's static runner with an empty environment and an empty system root."""

    name = "qemu"

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout

    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """See ``Device.open``."""
        return _QemuSession(bundle, threads, self.timeout)

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """See ``Device.system_states``."""
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-run-") as empty:
            return {self.name: run_probe([find_qemu(), "-L", empty, str(probe_program("aarch64"))], self.name)}


class _QemuSession(RunnerProcessSession):
    board = "qemu"
    emulated = True

    def __init__(self, bundle: Bundle, threads: int, timeout: float) -> None:
        super().__init__(bundle, threads, timeout)
        if bundle.architecture != "arm64":
            raise BundleError(
                f"The device qemu emulates arm64, and the bundle {bundle.path} is for {bundle.architecture} "
                f"(target {bundle.target}); run it with `--device local`, or compile it for an arm64 target."
            )
        if bundle.gpu is not None:
            raise BundleError(
                f"The device qemu emulates a processor, and the kernels of the bundle {bundle.path} are for an NVIDIA GPU (target "
                f"{bundle.target}); run it on the board with `--device ssh://…`, or compile it for an arm64 processor."
            )
        self._qemu = find_qemu()
        self._core = emulated_core(self._qemu, bundle.manifest["processor"])

    def command(self, folder: Path) -> list[str]:
        return [self._qemu, "-cpu", self._core, "-L", str(folder), str(self.bundle.runner)]


def find_qemu() -> str:
    """Path of qemu's user-mode emulator of arm64.

    Raises:
        ToolError: it is not installed.
    """
    for program in PROGRAMS:
        path = shutil.which(program)
        if path is not None:
            return path
    raise ToolError(
        f"The emulator {PROGRAMS[0]} is not installed; on Debian and Ubuntu, run `apt-get install qemu-user`."
    )


def emulated_core(qemu: str, processor: ProcessorEntry) -> str:
    """qemu's name of a core, so that instructions which the target lacks fault here as they would there.

    LLVM's ``generic`` is plain ARMv8.0-A, which is what a Cortex-A53 has. Cores that qemu does not know, and cores with
    added features, become ``max``.

    Args:
        qemu: the emulator.
        processor: the manifest's ``processor``.
    """
    wanted = "cortex-a53" if processor["mcpu"] == "generic" else processor["mcpu"]
    if any(feature.startswith("+") for feature in processor["mattr"]):
        return "max"
    result = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, errors="replace")
    return wanted if wanted in result.stdout.split() else "max"
