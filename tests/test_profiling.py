"""``profile`` must say where the time goes, in the right units and under the layers' names."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import Result

from bnn_deploy.bundle import Bundle
from bnn_deploy.devices import DeviceProfile
from bnn_deploy.plan import Step
from bnn_deploy.profiling import profile_bundle

Invoke = Callable[..., Result]

STEPS = (
    Step("pack_1", "stem", "pack", ()),
    Step("binary_1", "layer.1", "binary", (), binary_macs=3_000_000),
    Step("float_1", "head", "float", ()),
)


def fake(step_seconds: list[list[float]], emulated: bool = False) -> SimpleNamespace:
    steps = np.array(step_seconds)
    profile = DeviceProfile("board", steps, steps.sum(axis=1) + 1e-6, emulated)
    session = SimpleNamespace(profile=lambda repeat, warmup: [profile])
    return SimpleNamespace(name="local", open=lambda bundle, threads: nullcontext(session))


BUNDLE = SimpleNamespace(steps=STEPS, target="arm64", batch=4)


def test_units() -> None:
    """Breaks if seconds, microseconds, milliseconds or GMAC/s are confused, or one slow run changes the result."""
    device = fake([[1e-6, 3e-6, 2e-6]] * 9 + [[1e-6, 3e-3, 2e-6]])
    report = profile_bundle(BUNDLE, device, repeat=10)
    assert [kernel.us for kernel in report.kernels] == pytest.approx([1, 3, 2])
    assert [kernel.name for kernel in report.kernels] == ["pack_1", "binary_1", "float_1"]
    # 3e6 MAC in 3e-6 s are 1e12 per second.
    assert [kernel.gmacs_per_s for kernel in report.kernels] == pytest.approx([0, 1000, 0])
    assert report.latency_ms.median == pytest.approx(0.007) and report.latency_ms.min == pytest.approx(0.007)
    # Rank 0.9 * 9 = 8.1 of ten sorted times: one tenth of the way from the ninth (0.007 ms) to the tenth (3.004 ms).
    assert report.latency_ms.p90 == pytest.approx(0.007 + 0.1 * (3.004 - 0.007))
    assert report.share_by_kind == pytest.approx({"pack": 1 / 6, "binary": 1 / 2, "float": 1 / 3})
    assert report.batch == 4 and "warning" not in report.to_dict()


def test_rates_of_binary_kernels() -> None:
    """Breaks if the distance of the binary kernels from the fastest of them is miscounted, or a tiny kernel sets the mark."""
    second = Step("binary_2", "layer.2", "binary", (), binary_macs=1_000_000)
    steps = (*STEPS, second, Step("tiny", "squeeze", "binary", (), binary_macs=100))
    bundle = SimpleNamespace(steps=steps, target="arm64", batch=1)
    report = profile_bundle(bundle, fake([[1e-6, 3e-6, 2e-6, 0.5e-6, 1e-11]]), repeat=1)
    # 3e6 in 3 us and 1e6 in 0.5 us: 4.0001e6 in 3.50001 us together; the tiny one claims 1e13 per second.
    assert report.binary_gmacs_per_s == pytest.approx(4.0001e6 / 3.50001e-6 / 1e9)
    assert report.fastest_gmacs_per_s == pytest.approx(2000)
    nothing = profile_bundle(SimpleNamespace(steps=STEPS[:1], target="x", batch=1), fake([[1e-6]]), repeat=1)
    assert nothing.binary_gmacs_per_s == nothing.fastest_gmacs_per_s == 0


def test_zero_times() -> None:
    """Breaks if a step faster than the clock divides by zero or makes the JSON invalid."""
    report = profile_bundle(BUNDLE, fake([[0, 0, 0]]), repeat=1)
    assert [kernel.gmacs_per_s for kernel in report.kernels] == [0, 0, 0]
    json.dumps(report.to_dict(), allow_nan=False)


def test_emulated_times_are_marked() -> None:
    """Breaks if times of an emulator can be taken for latencies."""
    report = profile_bundle(BUNDLE, fake([[1, 1, 1]], emulated=True), repeat=1).to_dict()
    assert report["emulated"] is True and "no latencies" in report["warning"]


def test_real_profile(tiny_bundle: Path, tiny_onnx: Path, invoke: Invoke) -> None:
    """Breaks if kernels lose their layers' names, steps are missing, or binary work is miscounted."""
    result = invoke("profile", tiny_bundle, "--repeat", 5, "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["emulated"] is False and report["repeat"] == 5 and report["batch"] == 2
    latency = report["latency_ms"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"]
    assert len(report["kernels"]) == len(Bundle.open(tiny_bundle).steps)
    assert all(set(kernel) >= {"name", "layer", "us", "bmacs", "gmacs_per_s"} for kernel in report["kernels"])
    layers = {layer for kernel in report["kernels"] for layer in kernel["layer"].split(" + ")}
    binary = {node.name for node in onnx.load(tiny_onnx).graph.node if "Binary" in node.op_type}
    assert binary <= layers
    counted = json.loads(invoke("inspect", tiny_onnx, "--format", "json").stdout)["bops"]
    assert sum(kernel["bmacs"] for kernel in report["kernels"]) == 2 * counted
    assert sum(report["share_by_kind"].values()) == pytest.approx(1)


def test_text_is_sorted_by_time(tiny_bundle: Path, invoke: Invoke) -> None:
    """Breaks if the slowest kernel is not the first line, or the latency is missing."""
    lines = invoke("profile", tiny_bundle, "--repeat", 3).stdout.splitlines()
    header, rows = lines[0].split(), lines[1 : lines.index("")]
    assert header == ["layer", "kind", "kernel", "us", "share", "Mbmacs", "Gbmacs/s"]
    times = [float(row.split()[-4]) for row in rows]
    assert times == sorted(times, reverse=True) and len(times) > 10
    assert lines[lines.index("") + 1].startswith("latency: median ")
