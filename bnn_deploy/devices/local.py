"""This machine."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import TIMEOUT_SECONDS, Device, Session
from bnn_deploy.devices.probe import probe_program, run_probe
from bnn_deploy.devices.runner_process import RunnerProcessSession
from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.errors import DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.loader import Model, check_gpu
from bnn_deploy.runtime.processor import check_processor


class LocalDevice(Device):
    """Runs the bundle's shared library in this process, and profiles its runner in a process of its own."""

    name = "local"

    def __init__(self, timeout: float = TIMEOUT_SECONDS) -> None:
        self.timeout = timeout

    def open(self, bundle: Bundle, threads: int = 1, progress: ReportProgress = quiet) -> Session:
        """See ``Device.open``."""
        return _LocalSession(bundle, threads, self.timeout)

    def system_states(self) -> dict[str, SystemState | DeviceError]:
        """See ``Device.system_states``."""
        return {self.name: run_probe([str(probe_program(platform.machine()))], self.name)}


class _LocalSession(RunnerProcessSession):
    board = "local"
    emulated = False

    def __init__(self, bundle: Bundle, threads: int, timeout: float) -> None:
        super().__init__(bundle, threads, timeout)
        check_processor(bundle)
        check_gpu(bundle)
        self._model: Model | None = None

    def command(self, folder: Path) -> list[str]:
        return [str(self.bundle.runner)]

    def run(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(self._opened()(array))

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        outputs, observed = self._opened().run_tapped(array, taps=taps, total_bytes=total_bytes, forced=forced)
        return np.asarray(outputs), observed

    def _opened(self) -> Model:
        if self._model is None:
            self._model = Model(self.bundle, threads=self.threads)
        return self._model

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
