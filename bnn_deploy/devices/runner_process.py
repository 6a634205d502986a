"""Runs a bundle's static runner as a process of this machine, directly or under an emulator."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from abc import abstractmethod
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile, Session, profile_input
from bnn_deploy.devices.runner_report import read_profile
from bnn_deploy.errors import ToolError
from bnn_deploy.plan import TensorSpecification
from bnn_deploy.runtime.arrays import check_threads, checked_arrays
from bnn_deploy.runtime.taps import checked_taps


class RunnerProcessSession(Session):
    """A session whose runs are processes of the bundle's runner, with files in a temporary folder.

    Attributes:
        board: how reports and errors name the machine.
        emulated: times are the emulator's.
    """

    board: str
    emulated: bool

    def __init__(self, bundle: Bundle, threads: int, timeout: float) -> None:
        super().__init__(bundle, threads)
        check_threads(threads)
        self.timeout = timeout

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The words before the runner's own arguments; ``folder`` is empty and goes away after the process."""

    def run(self, array: np.ndarray) -> np.ndarray:
        """See ``Session.run``."""
        checked, batches = checked_arrays([array], self.bundle.inputs)
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-run-") as name:
            folder = Path(name)
            np.save(folder / "input.npy", checked[0])
            self._execute(folder, ["--input", "input.npy", "--output", "output.npy"])
            result = np.load(folder / "output.npy", allow_pickle=False)
        check_result(result, self.bundle, batches)
        return result

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Session.run_tapped``."""
        checked, batches = checked_arrays([array], self.bundle.inputs)
        taps, forced = checked_taps(self.bundle, taps, total_bytes, forced, batches)
        arguments = [
            "--input",
            "input.npy",
            "--output",
            "output.npy",
            "--taps",
            "taps.npy",
            "--observed",
            "observed.npy",
        ]
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-run-") as name:
            folder = Path(name)
            np.save(folder / "input.npy", checked[0])
            np.save(folder / "taps.npy", taps)
            if forced is not None:
                np.save(folder / "forced.npy", forced)
                arguments += ["--forced", "forced.npy"]
            self._execute(folder, arguments)
            result = np.load(folder / "output.npy", allow_pickle=False)
            observed = np.load(folder / "observed.npy", allow_pickle=False)
        check_result(result, self.bundle, batches)
        if observed.dtype != np.uint8 or observed.shape != (batches, total_bytes):
            raise ToolError(
                f"The runner of {self.bundle.path} gave {observed.dtype} of shape {observed.shape} for its taps, not uint8 of "
                f"shape {(batches, total_bytes)}."
            )
        return result, observed

    def profile(self, *, repeat: int = 20, warmup: int = 3) -> list[DeviceProfile]:
        """See ``Session.profile``."""
        array = profile_input(self.bundle, repeat=repeat, warmup=warmup)
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-run-") as name:
            folder = Path(name)
            np.save(folder / "input.npy", array)
            counts = ["--repeat", str(repeat), "--warmup", str(warmup)]
            self._execute(folder, ["--input", "input.npy", "--profile", "profile.json", *counts])
            text = (folder / "profile.json").read_text(encoding="utf-8", errors="replace")
        return [read_profile(text, self.bundle, self.board, emulated=self.emulated)]

    def _execute(self, folder: Path, arguments: list[str]) -> None:
        inner = folder / "empty"
        inner.mkdir()
        command = [*self.command(inner), *arguments, "--threads", str(self.threads)]
        try:
            result = subprocess.run(
                command,
                cwd=folder,
                env=_gpu_environment() if self.bundle.gpu else {},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            reason = f"did not finish in {self.timeout:g} s; give it more with --timeout."
        except OSError as error:
            reason = f"cannot be started: {error.strerror}."
        else:
            if result.returncode == 0:
                return
            lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
            if result.returncode < 0:
                reason = f"was stopped by {signal.Signals(-result.returncode).name}"
            else:
                reason = f"failed: {lines[-1] if lines else f'exit status {result.returncode}'}"
        raise ToolError(f"The runner of {self.bundle.path} on {self.board} {reason}")


def _gpu_environment() -> dict[str, str]:
    """What NVIDIA's driver is found and set by; HOME is where it keeps the kernels that it has compiled from PTX."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in ("HOME", "LD_LIBRARY_PATH") or name.startswith("CUDA_")
    }


def check_result(result: np.ndarray, bundle: Bundle, batches: int) -> None:
    """Raises ToolError unless ``result`` is the output of ``batches`` batches of a bundle."""
    expected: TensorSpecification = bundle.outputs[0]
    if result.dtype != expected.dtype or result.shape != (batches * expected.shape[0], *expected.shape[1:]):
        raise ToolError(f"The runner of {bundle.path} gave {result.dtype} of shape {result.shape}, not {expected}.")
