"""Bundles and profiles of chosen times, without a device: what is tested is what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.plan import Step
from bnn_deploy.profiling.measuring import summarise
from bnn_deploy.profiling.model import ProfileReport

STEPS = (
    Step("pack_1", "stem", "pack", ()),
    Step("binary_1", "layer.1", "binary", (), binary_macs=3_000_000),
    Step("float_1", "head", "float", ()),
)


def bundle_of(steps: Sequence[Step], batch: int = 1) -> Bundle:
    """What the manifest of a bundle with these steps says."""
    return Bundle(
        Path("network"),
        {
            "target": "arm64",
            "architecture": "arm64",
            "processor": {},
            "model": {"bnn_deploy.model": "tiny", "onnx_sha256": "0" * 64},
            "inputs": [{"name": "x", "shape": [batch, 3, 8, 8], "dtype": "float32"}],
            "steps": [
                {
                    "kernel": step.kernel,
                    "layer": step.layer,
                    "kind": step.kind,
                    "binary_macs": step.binary_macs,
                    "bytes": step.bytes,
                }
                for step in steps
            ],
        },
    )


def make_report(
    step_seconds: Sequence[Sequence[float]] | np.ndarray,
    steps: Sequence[Step] = STEPS,
    *,
    batch: int = 1,
    boards: Sequence[str] = ("local",),
    **facts: object,
) -> ProfileReport:
    """The report on a board with those times ``(repeat, steps)`` and 1 us beside them, or on several such boards."""
    times = np.asarray(step_seconds, dtype=np.float64)
    facts.setdefault("emulated", False)
    profiles = [DeviceProfile(name, times, times.sum(axis=1) + 1e-6, **facts) for name in boards]  # type: ignore[arg-type]
    bundle = bundle_of(steps, batch)
    return summarise(bundle, profiles, device="local", threads=1, repeat=len(times), warmup=3)
