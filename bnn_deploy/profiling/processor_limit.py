"""How many binary multiply-accumulates per second a board's processor or GPU can make at best."""

from __future__ import annotations

from bnn_deploy.bundle.manifest import ProcessorEntry
from bnn_deploy.devices.base import DeviceProfile


def processor_limit(processor: ProcessorEntry, times: DeviceProfile, threads: int) -> float | None:
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
    per_cycle = processor.get("binary_macs_per_cycle")
    if times.gpu is not None:
        khz, cores = times.gpu.khz, times.gpu.multiprocessors
    elif times.after is not None:
        sets = {entry["name"]: entry["binary_macs_per_cycle"] for entry in processor.get("kernel_sets", [])}
        per_cycle = sets.get(times.kernel_set, per_cycle)
        cpus = times.after.processors
        khz, cores = max((cpu.khz or cpu.maximum_khz or 0 for cpu in cpus), default=0), min(threads, len(cpus))
    else:
        return None
    return per_cycle * khz * cores * 1e-6 if per_cycle and khz and cores else None
