"""What a processor or a GPU can do at best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.devices.system_state import Processor, SystemState
from bnn_deploy.profiling.processor_limit import processor_limit

CPU = Processor(khz=1_800_000, minimum_khz=600_000, maximum_khz=1_800_000, governor="performance")
WELL = SystemState(host="pi", processors=(CPU,) * 4, temperatures={"cpu-thermal": 50.0}, throttled=0, load_average=0.1)
STEADY = np.full(20, 1e-3)


def test_processor_limit() -> None:
    """Breaks if the processor's limit is of another clock, counts threads that have no CPU, or is an emulator's."""
    times = DeviceProfile("pi", STEADY[:, None], STEADY, False, kernel_set="big", after=WELL)
    processor = {"binary_macs_per_cycle": 10, "kernel_sets": [{"name": "big", "binary_macs_per_cycle": 85.0}]}
    # 85 a cycle at 1.8 GHz.
    assert processor_limit(processor, times, 1) == pytest.approx(153)
    assert processor_limit(processor, times, 99) == pytest.approx(4 * 153)
    assert processor_limit(processor, replace(times, kernel_set=""), 1) == pytest.approx(18)
    assert processor_limit({"binary_macs_per_cycle": None}, times, 1) is None
    assert processor_limit(processor, replace(times, emulated=True), 1) is None
    assert processor_limit(processor, replace(times, after=None), 1) is None


def test_gpu_limit() -> None:
    """Breaks if the limit of a GPU is that of the processor beside it, or one is made up for a clock that is unknown."""
    orin = GpuInformation("Orin", 87, 16, 1_300_000, 3_200_000, 256, 32_000_000_000, 12060)
    times = DeviceProfile("orin", STEADY[:, None], STEADY, False, after=WELL, gpu=orin)
    processor = {"binary_macs_per_cycle": 4096.0}
    # 4096 in a cycle of 1.3 GHz on each of 16 multiprocessors, whatever the number of threads.
    assert processor_limit(processor, times, 1) == processor_limit(processor, times, 8) == pytest.approx(85196.8)
    assert processor_limit(processor, replace(times, gpu=replace(orin, khz=None)), 1) is None
    assert processor_limit({}, times, 1) is None
