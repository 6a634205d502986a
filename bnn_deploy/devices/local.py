"""This machine, in this process."""

from __future__ import annotations

import numpy as np

from bnn_deploy.bundle import Bundle
from bnn_deploy.devices.base import Device, DeviceProfile, check_single, profile_input
from bnn_deploy.runtime.loader import Model


class LocalDevice(Device):
    """Runs the bundle's shared library through ctypes."""

    name = "local"

    def run(self, bundle: Bundle, array: np.ndarray, threads: int = 1) -> np.ndarray:
        """See ``Device.run``."""
        check_single(bundle)
        model = Model(bundle, threads=threads)
        try:
            return np.asarray(model(array))
        finally:
            model.close()

    def profile(self, bundle: Bundle, threads: int = 1, *, repeat: int = 20, warmup: int = 3) -> DeviceProfile:
        """See ``Device.profile``."""
        array = profile_input(bundle, repeat=repeat, warmup=warmup)
        model = Model(bundle, threads=threads)
        try:
            step_seconds, total_seconds = model.profile(array, repeat=repeat, warmup=warmup)
        finally:
            model.close()
        return DeviceProfile(step_seconds, total_seconds, emulated=False)
