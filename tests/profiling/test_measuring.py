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

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.base import DeviceProfile
from bnn_deploy.plan import Step
from bnn_deploy.profiling.measuring import profile_bundle
from bnn_deploy.profiling.model import ProfileReport

Invoke = Callable[..., Result]
MakeReport = Callable[..., ProfileReport]


def test_units(make_report: MakeReport) -> None:
    """Breaks if seconds, microseconds, milliseconds or GMAC/s are confused, or one slow run changes the result."""
    report = make_report([[1e-6, 3e-6, 2e-6]] * 9 + [[1e-6, 3e-3, 2e-6]], batch=4)
    (board,) = report.boards
    assert [kernel.us.median for kernel in board.kernels] == pytest.approx([1, 3, 2])
    assert [kernel.name for kernel in board.kernels] == ["pack_1", "binary_1", "float_1"]
    # 3e6 MAC in 3e-6 s are 1e12 per second.
    assert [kernel.gmacs_per_s for kernel in board.kernels] == pytest.approx([0, 1000, 0])
    latency = board.latency_ms
    assert latency.median == pytest.approx(0.007) and latency.min == pytest.approx(0.007)
    # Rank 0.9 * 9 = 8.1 of ten sorted times: one tenth of the way from the ninth (0.007 ms) to the tenth (3.004 ms).
    assert latency.p90 == pytest.approx(0.007 + 0.1 * (3.004 - 0.007))
    assert board.share_by_kind == pytest.approx({"pack": 1 / 6, "binary": 1 / 2, "float": 1 / 3})
    assert [kernel.share for kernel in board.kernels] == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    assert report.batch == 4 and board.warnings == ()


def test_rates_of_binary_kernels(make_report: MakeReport) -> None:
    """Breaks if the distance of the binary kernels from the fastest of them is miscounted, or a tiny kernel sets the mark."""
    steps = (
        Step("pack_1", "stem", "pack", ()),
        Step("binary_1", "layer.1", "binary", (), binary_macs=3_000_000),
        Step("binary_2", "layer.2", "binary", (), binary_macs=1_000_000),
        Step("tiny", "squeeze", "binary", (), binary_macs=100),
    )
    board = make_report([[1e-6, 3e-6, 0.5e-6, 1e-11]], steps).boards[0]
    # 3e6 in 3 us and 1e6 in 0.5 us: 4.0001e6 in 3.50001 us together; the tiny one claims 1e13 per second.
    assert board.binary_gmacs_per_s == pytest.approx(4.0001e6 / 3.50001e-6 / 1e9)
    assert board.fastest_gmacs_per_s == pytest.approx(2000)
    nothing = make_report([[1e-6]], steps[:1]).boards[0]
    assert nothing.binary_gmacs_per_s == nothing.fastest_gmacs_per_s == 0


def test_zero_times(make_report: MakeReport) -> None:
    """Breaks if a step faster than the clock divides by zero or makes the JSON invalid."""
    report = make_report([[0, 0, 0]] * 8)
    assert [kernel.gmacs_per_s for kernel in report.boards[0].kernels] == [0, 0, 0]
    json.dumps(report.to_dict(), allow_nan=False)


def test_emulated_times_are_marked(make_report: MakeReport) -> None:
    """Breaks if times of an emulator can be taken for latencies."""
    board = make_report([[1, 1, 1]], emulated=True).to_dict()["boards"][0]
    assert board["emulated"] is True
    assert [warning["code"] for warning in board["warnings"]] == ["emulated"]
    assert "no latencies" in board["warnings"][0]["text"]


def test_real_profile(tiny_bundle: Path, tiny_onnx: Path, invoke: Invoke) -> None:
    """Breaks if kernels lose their layers' names, steps are missing, or binary work is miscounted."""
    result = invoke("profile", tiny_bundle, "--repeat", 9, "--warmup", 1, "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["repeat"], report["warmup"], report["input_shape"][0]) == (9, 1, 2)
    (board,) = report["boards"]
    assert board["emulated"] is False and board["board"] == "local"
    latency = board["latency_ms"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p90"]
    assert latency["min"] <= latency["interval"][0] <= latency["median"] <= latency["interval"][1]
    assert len(board["kernels"]) == len(Bundle.open(tiny_bundle).steps)
    # What the kernels take is within what the whole takes, beside the reading of the clock.
    assert sum(kernel["us"]["min"] for kernel in board["kernels"]) < 1e3 * latency["p90"]
    layers = {layer for kernel in board["kernels"] for layer in kernel["layer"].split(" + ")}
    binary = {node.name for node in onnx.load(tiny_onnx).graph.node if "Binary" in node.op_type}
    assert binary <= layers
    counted = json.loads(invoke("inspect", tiny_onnx, "--format", "json").stdout)["bops"]
    assert sum(kernel["bmacs"] for kernel in board["kernels"]) == 2 * counted
    assert sum(board["share_by_kind"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("seconds", "emulated", "asked", "runs"),
    [
        (0.01, False, None, [20, 50]),
        (1e-6, False, None, [20, 1000]),
        (0.0, False, None, [20, 1000]),
        (0.1, False, None, [20]),
        (1e-6, True, None, [20]),
        (1e-6, False, 7, [7]),
    ],
)
def test_how_often_it_runs(
    three_steps: Bundle, seconds: float, emulated: bool, asked: int | None, runs: list[int]
) -> None:
    """Breaks if short networks are judged by a few microseconds, slow ones take minutes, or --repeat is not obeyed."""
    done = []

    def profile(repeat: int, warmup: int) -> list[DeviceProfile]:
        done.append(repeat)
        times = np.full((repeat, 3), seconds / 3)
        return [DeviceProfile("board", times, times.sum(axis=1), emulated)]

    session = SimpleNamespace(profile=profile, boards=tuple)
    device = SimpleNamespace(name="board", open=lambda *arguments: nullcontext(session))
    report = profile_bundle(three_steps, device, repeat=asked)
    assert done == runs and report.repeat == runs[-1]


def test_text_is_sorted_by_time(tiny_bundle: Path, invoke: Invoke) -> None:
    """Breaks if the slowest kernel is not the first line, or the latency is missing."""
    lines = invoke("profile", tiny_bundle, "--repeat", 3).stdout.splitlines()
    header, rows = lines[0].split(), lines[1 : lines.index("")]
    assert header == ["layer", "kind", "kernel", "us", "spread", "share", "Mbmacs", "Gbmacs/s"]
    times = [float(row.split()[-5]) for row in rows]
    assert times == sorted(times, reverse=True) and len(times) > 10
    assert lines[lines.index("") + 1].startswith("latency: median ")
