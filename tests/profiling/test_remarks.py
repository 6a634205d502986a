"""A profile must say when the board was not in a state to be measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.devices.system_state import Processor, SystemState
from bnn_deploy.profiling.remarks import remarks
from bnn_deploy.profiling.spread import spread_of

CPU = Processor(khz=1_800_000, minimum_khz=600_000, maximum_khz=1_800_000, governor="performance")
WELL = SystemState(host="pi", processors=(CPU,) * 4, temperatures={"cpu-thermal": 50.0}, throttled=0, load_average=0.1)
STEADY = np.full(20, 1e-3)


def said(
    before: SystemState | None, after: SystemState | None, seconds: np.ndarray = STEADY, threads: int = 1
) -> dict[str, str]:
    times = DeviceProfile("pi", seconds[:, None], seconds, False, before=before, after=after)
    return {remark.code: remark.text for remark in remarks(times, spread_of(seconds * 1e3), threads)}


def test_a_board_that_is_well() -> None:
    """Breaks if a cool, idle board at full clock gets a warning, and so nobody reads them any more."""
    assert said(WELL, WELL) == {} and said(None, None) == {}


def test_throttled() -> None:
    """Breaks if a Raspberry Pi that was short of power or too hot, before or after, is measured without a word."""
    # 0x50000: under-voltage and throttling since it started; 0x8: at its soft temperature limit now.
    found = said(replace(WELL, throttled=0x50000), replace(WELL, throttled=0x50008))
    assert "under-voltage since boot" in found["throttled"] and "soft temperature limit now" in found["throttled"]
    assert "throttled" in said(replace(WELL, throttled=1), WELL)


def test_clock() -> None:
    """Breaks if a lowered clock goes unnoticed, or idle CPUs next to the one that ran are taken for it."""
    slow = replace(CPU, khz=1_200_000)
    found = said(WELL, replace(WELL, processors=(slow,) * 4))
    assert set(found) == {"clock"} and "1200 of its 1800 MHz" in found["clock"]
    assert said(WELL, replace(WELL, processors=(slow, slow, CPU, slow))) == {}


def test_governor() -> None:
    """Breaks if a governor that changes the clock goes unnamed."""
    after = replace(WELL, processors=(replace(CPU, governor="ondemand"),) * 4)
    assert "ondemand" in said(WELL, after)["governor"]


def test_temperature() -> None:
    """Breaks if a hot board, or one that got hot while it ran, is not named with its degrees."""
    assert "84 C" in said(WELL, replace(WELL, temperatures={"cpu-thermal": 84.0}))["temperature"]
    assert "from 50 to 70 C" in said(WELL, replace(WELL, temperatures={"cpu-thermal": 70.0}))["temperature"]
    assert said(WELL, replace(WELL, temperatures={"cpu-thermal": 60.0})) == {}


@pytest.mark.parametrize("threads, load, warned", [(1, 0.4, False), (1, 3.4, False), (1, 3.6, True), (4, 0.6, True)])
def test_load(threads: int, load: float, warned: bool) -> None:
    """Breaks if other programs took our CPUs and nobody was told, or a warning comes though there were CPUs enough."""
    assert ("load" in said(replace(WELL, load_average=load), WELL, threads=threads)) == warned


def test_noise() -> None:
    """Breaks if scattered or drifting times look as good as steady ones."""
    # Quartiles 1.0 and 1.3 ms around a median of 1.15.
    assert "scatter over 26% of the median" in said(WELL, WELL, np.tile([1.0e-3, 1.3e-3], 10))["noise"]
    # A tenth of the repeats in the later half are far off, so that the quartiles do not see it: 1 -> 1.1 in a few steps.
    drifting = np.repeat([1.0e-3, 1.06e-3], [14, 14])
    found = said(WELL, WELL, drifting)
    assert "noise" in found
    assert "noise" not in said(WELL, WELL, np.linspace(1e-3, 1.02e-3, 20))


def test_an_emulator_is_all_that_is_said() -> None:
    """Breaks if the clock of the machine that emulates is taken for that of a board."""
    times = DeviceProfile("qemu", STEADY[:, None], STEADY, True, before=WELL, after=replace(WELL, throttled=5))
    assert [remark.code for remark in remarks(times, spread_of(STEADY), 1)] == ["emulated"]
