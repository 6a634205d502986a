"""Runs a bundle's runner as a process of this machine, directly or under an emulator."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.runner_session import RunnerSession
from bnn_deploy.errors import ToolError


class RunnerProcessSession(RunnerSession):
    """A session whose runs are processes of the bundle's runner, with files in a temporary folder."""

    def __init__(self, bundle: Bundle, threads: int, timeout: float) -> None:
        super().__init__(bundle, threads)
        self.timeout = timeout

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The words before the runner's own arguments; ``folder`` is empty and goes away after the process."""

    def call(self, arguments: list[str], files: Mapping[str, bytes], results: Sequence[str], maximum: int) -> bytes:
        """See ``RunnerSession.call``."""
        with tempfile.TemporaryDirectory(prefix="bnn-deploy-run-") as name:
            folder = Path(name)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            self._execute(folder, arguments)
            return b"".join((folder / file).read_bytes() for file in results)

    def _execute(self, folder: Path, arguments: list[str]) -> None:
        inner = folder / "empty"
        inner.mkdir()
        command = [*self.command(inner), *arguments]
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
