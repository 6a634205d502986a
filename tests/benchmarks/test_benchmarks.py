"""The benchmarks run, and count and compare what they say they do. Nothing here looks at a time."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import contestants
import emulator
import kernels
import model_layers
import pytest
import torch
import versus
from click.testing import CliRunner
from interleaved import interleave

from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.onnx_files.statistics import model_statistics

# A program of two instructions per turn of a loop, and seven around it.
PROGRAM = """
.globl _start
_start:
    mov x1, #1000
again:
    subs x1, x1, #1
    b.ne again
    mov x0, #0
    nop
    nop
    nop
    mov x8, #93
    svc #0
"""


def test_everything_has_its_turn_first() -> None:
    """One of the programs always runs after the same other one, or is called more often."""
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleave(runs, rounds=3, calls=2)
    assert "".join(order) == "aaabbbccc" + "bbbcccaaa" + "cccaaabbb"
    assert {name: (one.wall.shape, one.processor.shape) for name, one in times.items()} == {
        n: ((3,), (3,)) for n in "abc"
    }


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_layers_are_those_of_the_file(tiny_model: Callable[..., Path], variant: str) -> None:
    """The kernel benchmark leaves layers out, measures other shapes, or takes two values for three."""
    path = tiny_model("bimlp_tiny", variant)
    layers = model_layers.binary_layers(path, batch=3)
    assert {layer.ternary for layer in layers} == {variant == "released"}
    statistics = model_statistics(load_onnx(path), 0)
    assert sum(layer.binary_macs * len(names) for layer, names in layers.items()) == 3 * statistics.bops
    named = {name for names in layers.values() for name in names}
    assert named == {row.name for row in statistics.layers if row.kind == "binary"}


def test_frozen_layers_compute_the_same() -> None:
    """PyTorch is timed on another network."""
    torch.manual_seed(0)
    layers = [BinaryConv2d(8, 6, (3, 3), padding=1), BinaryConv2d(8, 8, (1, 7), groups=4, scaling="tap")]
    signs = torch.randn(2, 8, 9, 9).sign()
    for layer, x in [*((layer, signs) for layer in layers), (BinaryLinear(9, 5), signs)]:
        frozen = contestants.frozen(torch.nn.Sequential(layer).eval())
        expected = layer.eval()(x)
        # A sum of K <= 72 scaled terms instead of the scaled sum: K roundings of at most 72 * max(scale).
        torch.testing.assert_close(frozen(x), expected, rtol=0, atol=72 * 72 * 2.0**-24)


def test_versus_reports_ratios(tmp_path: Path, tiny_onnx: Path, tiny_bundle: Path) -> None:
    """versus does not run, or leaves a program or a ratio out."""
    arguments = [tiny_onnx, "--bundle", tiny_bundle, "--batch", 2, "--threads", "1,2", "--rounds", 2]
    result = CliRunner().invoke(versus.main, [*map(str, arguments), "--json", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    (report,) = json.loads((tmp_path / "report").read_text())
    programs = {name.rpartition(", ")[0] for name in report["milliseconds"]}
    assert {name.partition(" ")[0] for name in programs} == {"ours", "onnxruntime", "pytorch", "pytorch,"}
    # At each number of threads three others; and ours with two threads against one.
    assert len(report["ratios"]) == 2 * 3 + 1
    assert all(len(row["rounds"]) == 2 for row in report["milliseconds"].values())


def test_versus_refuses_other_outputs(tiny_onnx: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that compute different things are compared by their time."""
    right = contestants.onnxruntime
    monkeypatch.setattr(contestants, "onnxruntime", lambda *arguments: lambda x: right(*arguments)(x) * 1.001)
    arguments = [tiny_onnx, "--bundle", tiny_bundle, "--batch", 2, "--against", "onnxruntime"]
    result = CliRunner().invoke(versus.main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert "DIFFERS" in result.output and "milliseconds" not in result.output


def test_kernels_are_measured(tmp_path: Path, tiny_onnx: Path) -> None:
    """The kernel benchmark does not run on this machine, or its rates are not of the layers' operations."""
    arguments = [str(tiny_onnx), "--rounds", "1", "--block-rows", "2", "--json", str(tmp_path / "report")]
    result = CliRunner().invoke(kernels.main, arguments)
    assert result.exit_code == 0, result.output
    (report,) = json.loads((tmp_path / "report").read_text())
    rows = report["kernels"]
    assert sum(row["macs"] * row["uses"] for row in rows) == model_statistics(load_onnx(tiny_onnx), 0).bops
    assert any(row["specification"]["block_rows"] == 2 for row in rows)
    for row in rows:
        assert row["rate"]["median"] == pytest.approx(row["macs"] / row["seconds"]["median"])


@pytest.mark.qemu
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="zig's names of other machines differ")
def test_instructions_are_counted_exactly(tmp_path: Path) -> None:
    """The plugin does not load, or counts anything but executed instructions."""
    source, program = tmp_path / "program.S", tmp_path / "program"
    source.write_text(PROGRAM)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-nostdlib", "-static"]
    subprocess.run([*command, source, "-o", program], check=True)
    assert emulator.count(emulator.build_plugin(tmp_path), [program]) == 2 * 1000 + 7
