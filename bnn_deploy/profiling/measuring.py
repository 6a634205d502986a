"""Where the time of one inference goes: latency, and microseconds and binary GMAC/s of every kernel, board by board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.metadata import entries
from bnn_deploy.plan import Step
from bnn_deploy.profiling.model import KINDS, BoardReport, KernelTime, LostBoard, ProfileReport
from bnn_deploy.profiling.processor_limit import processor_limit
from bnn_deploy.profiling.remarks import remarks
from bnn_deploy.profiling.spread import spread_of
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.version import __version__

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.devices.base import Device

# Half a second outlasts most of what disturbs a machine for a moment.
ENOUGH_SECONDS = 0.5
FEWEST_RUNS, MOST_RUNS = 20, 1000


def profile_bundle(
    bundle: Bundle,
    device: Device,
    *,
    threads: int = 1,
    repeat: int | None = None,
    warmup: int = 3,
    progress: ReportProgress = quiet,
) -> ProfileReport:
    """Run ``bundle`` ``repeat`` times on every board of ``device`` after ``warmup`` untimed runs, and summarise the times.

    Args:
        repeat: None chooses: as many runs as take ``ENOUGH_SECONDS``, from ``FEWEST_RUNS`` to ``MOST_RUNS``.

    Raises:
        BnnDeployError: whatever the device says when the bundle cannot run there.
    """
    with device.open(bundle, threads, progress) as session:
        count = FEWEST_RUNS if repeat is None else repeat
        progress(f"{bundle.path.name}: {warmup} + {count} runs on {device.name}")
        profiles = session.profile(repeat=count, warmup=warmup)
        wanted = count if repeat is not None else _enough_runs(profiles)
        if wanted > count:
            count = wanted
            progress(f"{bundle.path.name}: {warmup} + {count} runs on {device.name}")
            profiles = session.profile(repeat=count, warmup=warmup)
        lost = tuple(LostBoard(use.board, use.lost) for use in session.boards() if use.lost)
    report = summarise(bundle, profiles, device=device.name, threads=threads, repeat=count, warmup=warmup)
    return replace(report, lost=lost)


def _enough_runs(profiles: Sequence[DeviceProfile]) -> int:
    """How often to run, from what a few runs took; an emulator's time is not worth more of them."""
    if any(profile.emulated for profile in profiles):
        return FEWEST_RUNS
    seconds = max(float(np.median(profile.total_seconds)) for profile in profiles)
    return max(FEWEST_RUNS, min(MOST_RUNS, ceil(ENOUGH_SECONDS / max(seconds, 1e-9))))


def summarise(
    bundle: Bundle, profiles: Sequence[DeviceProfile], *, device: str, threads: int, repeat: int, warmup: int
) -> ProfileReport:
    """The report on what the boards of a device measured.

    Args:
        bundle: what ran.
        profiles: of each board, ``step_seconds`` with one column for each step of ``bundle``.
        device: as the user named it.
        threads, repeat, warmup: as it was measured.
    """
    model = bundle.manifest["model"]
    return ProfileReport(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        version=__version__,
        model=model.get(entries.MODEL, ""),
        model_sha256=model.get("onnx_sha256", ""),
        input_shape=bundle.inputs[0].shape,
        target=bundle.target,
        architecture=bundle.architecture,
        device=device,
        threads=threads,
        warmup=warmup,
        repeat=repeat,
        boards=tuple(_board(bundle, profile, threads) for profile in profiles),
    )


def _board(bundle: Bundle, times: DeviceProfile, threads: int) -> BoardReport:
    kernels = _kernels(bundle.steps_of(times.kernel_set), times.step_seconds)
    latency = spread_of(times.total_seconds * 1e3)
    return BoardReport(
        board=times.board,
        emulated=times.emulated,
        kernel_set=times.kernel_set,
        latency_ms=latency,
        kernels=kernels,
        share_by_kind={kind: sum(k.share for k in kernels if k.kind == kind) for kind in KINDS},
        binary_gmacs_per_s=_binary_rate(kernels),
        fastest_gmacs_per_s=_fastest_rate(kernels),
        processor_gmacs_per_s=processor_limit(bundle.manifest["processor"], times, threads),
        copy_bytes_per_second=times.copy_bytes_per_second,
        peak_memory_bytes=times.peak_memory_bytes,
        before=times.before,
        after=times.after,
        warnings=remarks(times, latency, threads),
        gpu=times.gpu,
    )


def _kernels(steps: Sequence[Step], step_seconds: np.ndarray) -> tuple[KernelTime, ...]:
    spreads = [spread_of(column * 1e6) for column in step_seconds.T]
    total = sum(spread.median for spread in spreads)
    return tuple(
        KernelTime(
            name=step.kernel,
            layer=step.layer,
            kind=step.kind,
            us=us,
            share=us.median / total if total > 0 else 0.0,
            bytes=step.bytes,
            bmacs=step.binary_macs,
            # MACs per microsecond are 1e6 per second. A step faster than the clock's resolution has no known rate.
            gmacs_per_s=step.binary_macs / us.median * 1e-3 if us.median > 0 else 0.0,
        )
        for step, us in zip(steps, spreads, strict=True)
    )


def _binary_rate(kernels: Sequence[KernelTime]) -> float:
    us = sum(kernel.us.median for kernel in kernels if kernel.bmacs)
    return sum(kernel.bmacs for kernel in kernels) / us * 1e-3 if us > 0 else 0.0


def _fastest_rate(kernels: Sequence[KernelTime]) -> float:
    all_macs = sum(kernel.bmacs for kernel in kernels)
    # The time of tiny kernels is mostly that of reading the clock.
    return max((k.gmacs_per_s for k in kernels if k.bmacs and 1000 * k.bmacs >= all_macs), default=0.0)
