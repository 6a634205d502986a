"""An arm64 machine emulated by qemu's user mode: proves correctness on the target's processor, and never its speed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bnn_deploy.bundle import Bundle
from bnn_deploy.devices.base import Device, DeviceProfile, check_single, profile_input
from bnn_deploy.errors import BundleError, ToolError
from bnn_deploy.runtime.arrays import check_threads, checked_arrays

PROGRAMS = ("qemu-aarch64", "qemu-aarch64-static")


class QemuDevice(Device):
    """Runs the bundle's static runner with an empty environment and an empty system root."""

    name = "qemu"

    def run(self, bundle: Bundle, array: np.ndarray, threads: int = 1) -> np.ndarray:
        """See ``Device.run``."""
        check_single(bundle)
        check_threads(threads)
        checked, batches = checked_arrays([array], bundle.inputs)
        expected = bundle.outputs[0]
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-qemu-") as folder:
            np.save(Path(folder) / "input.npy", checked[0])
            arguments = ["--input", "input.npy", "--output", "output.npy", "--threads", str(threads)]
            _run_emulated(bundle, arguments, Path(folder))
            result = np.load(Path(folder) / "output.npy", allow_pickle=False)
        if result.dtype != expected.dtype or result.shape != (batches * expected.shape[0], *expected.shape[1:]):
            raise ToolError(f"The runner of {bundle.path} gave {result.dtype} of shape {result.shape}, not {expected}.")
        return result

    def profile(self, bundle: Bundle, threads: int = 1, *, repeat: int = 20, warmup: int = 3) -> DeviceProfile:
        """See ``Device.profile``; the result is marked as emulated."""
        check_threads(threads)
        array = profile_input(bundle, repeat=repeat, warmup=warmup)
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-qemu-") as folder:
            np.save(Path(folder) / "input.npy", array)
            arguments = ["--input", "input.npy", "--profile", "profile.json", "--threads", str(threads)]
            _run_emulated(bundle, [*arguments, "--repeat", str(repeat), "--warmup", str(warmup)], Path(folder))
            report = json.loads((Path(folder) / "profile.json").read_text(encoding="utf-8"))
        step_seconds = np.asarray(report["step_seconds"], dtype=np.float64)
        return DeviceProfile(step_seconds, np.asarray(report["total_seconds"], dtype=np.float64), emulated=True)


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


def emulated_core(qemu: str, processor: dict[str, Any]) -> str:
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


def _run_emulated(bundle: Bundle, arguments: list[str], folder: Path) -> None:
    if bundle.architecture != "arm64":
        raise BundleError(
            f"The device qemu emulates arm64, and the bundle {bundle.path} is for {bundle.architecture} "
            f"(target {bundle.target}); run it with `--device local`, or compile it for an arm64 target."
        )
    qemu = find_qemu()
    system_root = folder / "empty"
    system_root.mkdir()
    core = emulated_core(qemu, bundle.manifest["processor"])
    command = [qemu, "-cpu", core, "-L", str(system_root), str(bundle.runner), *arguments]
    result = subprocess.run(
        command, cwd=folder, env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if result.returncode == 0:
        return
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    if result.returncode < 0:
        reason = f"was stopped by {signal.Signals(-result.returncode).name}"
    else:
        reason = f"failed: {lines[-1] if lines else f'exit status {result.returncode}'}"
    raise ToolError(f"The runner of {bundle.path}, emulating {core}, {reason}")
