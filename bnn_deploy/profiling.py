"""Where the time of one inference goes: latency, and microseconds and binary GMAC/s of every kernel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bnn_deploy.bundle import Bundle
    from bnn_deploy.devices.base import Device

EMULATION_WARNING = "These are times of the emulator and no latencies of any device; measure on the device itself."


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one call on one batch, over the repeats."""

    median: float
    min: float
    p90: float


@dataclass(frozen=True)
class KernelTime:
    """One kernel call of the plan.

    Attributes:
        name: C symbol of the kernel.
        layer: path of the PyTorch layers (or name of the ONNX nodes) that it computes.
        kind: "binary" (popcount), "pack" (sign and bitpack) or "float".
        us: median time of the call in microseconds.
        bmacs: binary multiply-accumulates of the call.
        gmacs_per_s: 1e9 binary multiply-accumulates per second, 0 if it makes none.
    """

    name: str
    layer: str
    kind: str
    us: float
    bmacs: int
    gmacs_per_s: float


@dataclass(frozen=True)
class ProfileReport:
    """Result of ``profile_bundle``.

    Attributes:
        latency_ms: see ``Latency``; meaningless as a latency when ``emulated``.
        kernels: in the order of execution.
        share_by_kind: part of the kernels' summed time, by kind; sums to 1.
        binary_gmacs_per_s: all binary multiply-accumulates over the summed time of the binary kernels, in 1e9; 0 without.
        fastest_gmacs_per_s: the same of the fastest kernel among those that make at least a thousandth of them: what this
            processor can do, and so how far the others are from it.
        emulated: measured under an emulator.
    """

    target: str
    device: str
    threads: int
    batch: int
    repeat: int
    emulated: bool
    latency_ms: Latency
    kernels: tuple[KernelTime, ...]
    share_by_kind: dict[str, float]
    binary_gmacs_per_s: float
    fastest_gmacs_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON; ``warning`` is there when the times are emulated."""
        result = asdict(self)
        result["kernels"] = [asdict(kernel) for kernel in self.kernels]
        if self.emulated:
            result["warning"] = EMULATION_WARNING
        return result


def profile_bundle(
    bundle: Bundle, device: Device, *, threads: int = 1, repeat: int = 20, warmup: int = 3
) -> ProfileReport:
    """Run ``bundle`` ``repeat`` times on ``device`` after ``warmup`` untimed runs, and summarise the times.

    Raises:
        BnnDeployError: whatever the device says when the bundle cannot run there.
    """
    with device.open(bundle, threads) as session:
        times = session.profile(repeat=repeat, warmup=warmup)[0]
    step_us = np.median(times.step_seconds, axis=0) * 1e6
    kernels = tuple(
        KernelTime(
            name=step.kernel,
            layer=step.layer,
            kind=step.kind,
            us=float(us),
            bmacs=step.binary_macs,
            # MACs per microsecond are 1e6 per second. A step faster than the clock's resolution has no known rate.
            gmacs_per_s=step.binary_macs / float(us) * 1e-3 if us > 0 else 0.0,
        )
        for step, us in zip(bundle.steps, step_us, strict=True)
    )
    total_ms = times.total_seconds * 1e3
    return ProfileReport(
        target=bundle.target,
        device=device.name,
        threads=threads,
        batch=bundle.batch,
        repeat=repeat,
        emulated=times.emulated,
        latency_ms=Latency(float(np.median(total_ms)), float(total_ms.min()), float(np.percentile(total_ms, 90))),
        kernels=kernels,
        share_by_kind=_share_by_kind(kernels),
        binary_gmacs_per_s=_binary_rate(kernels),
        fastest_gmacs_per_s=_fastest_rate(kernels),
    )


def _binary_rate(kernels: tuple[KernelTime, ...]) -> float:
    us = sum(kernel.us for kernel in kernels if kernel.bmacs)
    return sum(kernel.bmacs for kernel in kernels) / us * 1e-3 if us > 0 else 0.0


def _fastest_rate(kernels: tuple[KernelTime, ...]) -> float:
    all_macs = sum(kernel.bmacs for kernel in kernels)
    # The time of tiny kernels is mostly that of reading the clock.
    return max((k.gmacs_per_s for k in kernels if k.bmacs and 1000 * k.bmacs >= all_macs), default=0.0)


def _share_by_kind(kernels: tuple[KernelTime, ...]) -> dict[str, float]:
    total = sum(kernel.us for kernel in kernels)
    shares: dict[str, float] = {}
    for kernel in kernels:
        shares[kernel.kind] = shares.get(kernel.kind, 0.0) + (kernel.us / total if total else 0.0)
    return shares
