"""How many binary multiply-accumulates per second a board's processor or GPU can make at best."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from bnn_deploy.devices.base import DeviceProfile


def processor_limit(processor: Mapping[str, Any], times: DeviceProfile, threads: int) -> float | None:
    """1e9 binary multiply-accumulates per second: the target's per cycle and core, times clock, times threads.

    A GPU has multiprocessors for cores, and uses all of them, at the highest clock that its driver names.

    The clock is the highest that a CPU had right after the last repeat (the one that ran the network, as idle ones clock
    down), or the highest that it may have where the present one is unknown.

    Args:
        processor: the manifest's, with ``binary_macs_per_cycle`` of the target, or of each of its ``kernel_sets``.
        times: what was measured.
        threads: per inference; more than the board has CPUs make it no faster.

    Returns:
        None when the target does not say what it can do, the board does not tell its clock, or an emulator ran.
    """
    if times.emulated:
        return None
    if times.gpu is not None:
        factors = (processor.get("binary_macs_per_cycle"), times.gpu.khz, times.gpu.multiprocessors)
        return None if None in factors else prod(factors) * 1e-6
    if times.after is None:
        return None
    sets = [entry for entry in processor.get("kernel_sets", []) if entry.get("name") == times.kernel_set]
    per_cycle = (sets[0] if sets else processor).get("binary_macs_per_cycle")
    cpus = times.after.processors
    clocks = [cpu.khz or cpu.maximum_khz or 0 for cpu in cpus]
    if not isinstance(per_cycle, (int, float)) or isinstance(per_cycle, bool) or not max(clocks, default=0):
        return None
    return per_cycle * max(clocks) * 1e3 * min(threads, len(cpus)) * 1e-9
