"""The benchmark for machines with a GPU, on machines without: refused, run on the fake driver, and its peak's machine code read."""

from __future__ import annotations

import json
from pathlib import Path

import gpu
import gpu_kernels
import gpu_models
import numpy as np
import pytest
import torch
import tvm
from click.testing import CliRunner
from model_layers import binary_layers

from bnn_deploy import compiler
from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.passes.pipeline import Lowered
from bnn_deploy.passes.tir.cuda_source import device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.references.whole_model import open_reference
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target
from bnn_deploy.targets.table import select_gpu_kernel
from tests.cuda.disassembly import assert_native, kernel_code
from tests.cuda.driver import build_driver, build_kernels, driver_environment, run_python
from tests.cuda.serial import SERIAL_FUNCTIONS
from tests.cuda.serial_library import serial_library

SM = 87
EXTENT = 64
PROGRAM = str(Path(gpu.__file__))
# As `python benchmarks/gpu.py …` does, but in run_python's words.
RUN = "import runpy, sys; from pathlib import Path; sys.path.insert(0, str(Path(sys.argv[1]).parent)); " + (
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.mark.parametrize("sm", [75, 87, 90])
def test_peak_is_made_of_the_native_instruction(sm: int) -> None:
    """The peak is that of an emulation, of a loop that the compiler emptied, or of another number of operations."""
    source = gpu_kernels.peak_source(sm)
    assert source is not None
    (code,) = kernel_code(compile_cuda(source, sm).cubin).values()
    assert_native(code, architecture(sm).dot_product)
    (count,) = (count for name, count in code.opcodes.items() if name.startswith("BMMA"))
    once = gpu_kernels.PEAK_SUMS * (4 if sm == 75 else 1)
    # The compiler unrolls the loop by a power of two, without a remainder.
    unrolled = count / once
    assert unrolled in (1, 2, 4, 8, 16, 32) and gpu_kernels.PEAK_ITERATIONS % unrolled == 0
    # Operands are loaded before the loop, each once, and stay in registers.
    accesses = {name: n for name, n in code.opcodes.items() if name.startswith(("LDG", "LDL", "STL", "LDS"))}
    assert sum(accesses.values()) == gpu_kernels.PEAK_OPERANDS // 32, accesses


def test_gpus_without_b1_mma_have_no_peak() -> None:
    """The benchmark stops with a compiler's error on a GPU whose kernels are made of popcounts."""
    assert gpu_kernels.peak_source(72) is None


@pytest.mark.parametrize("batch", ["0", "", "1,x"])
def test_wrong_batches_are_refused(batch: str) -> None:
    """A mistyped option ends in a traceback, or after minutes of compiling."""
    result = CliRunner().invoke(gpu.main, ["--batch", batch])
    assert result.exit_code == 2 and "--batch takes numbers" in result.output


def test_without_a_gpu_it_is_refused() -> None:
    """A machine without a GPU gets a traceback, or times that are none."""
    done = run_python(RUN, PROGRAM, environment=driver_environment(None, None))
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: This benchmark needs an NVIDIA GPU in this machine: ")


def test_kernels_are_measured(tmp_path: Path, tiny_onnx: Path) -> None:
    """It stops on the first machine that has a GPU, leaves a kernel out, or gives rates of other operations."""
    layers = list(binary_layers(tiny_onnx, 1))
    kernels = _kernels(tmp_path, [[ConvolutionSpecification(EXTENT, 1, 1, EXTENT, EXTENT)], layers])
    report, text = _run(tmp_path, kernels, tiny_onnx, "--only", "gemm", "--extent", EXTENT)
    square, network = (group["rows"] for group in report["kernels"])
    assert [len(square), len(network)] == [1, len(layers)] and report["models"] == []
    assert square[0]["macs"] == EXTENT**3
    for row in (*square, *network):
        # Of one or two rounds: ratios within a round, whose medians are means.
        assert row["rate"]["p90"] <= row["macs"] / row["seconds"]["min"] * (1 + 1e-9)
        # The fake GPU: 16 multiprocessors of 1.3 GHz.
        assert row["per_clock"]["median"] == pytest.approx(row["rate"]["median"] / (16 * 1.3e9))
        assert row["of_peak"]["median"] > 0 and row["peak"]["median"] > 0
    assert "of peak" in text and f"{EXTENT} x {EXTENT} x {EXTENT}" in text


def test_networks_are_measured(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our bundle is not run on data of the GPU, or is timed though it computes something else; PyTorch is left out in silence."""
    made: list[Lowered] = []
    original = compiler.lower
    monkeypatch.setattr(compiler, "lower", lambda *arguments: made.append(original(*arguments)) or made[-1])
    compiler.compile_model(tiny_onnx, f"cuda-sm_{SM}", tmp_path / "bundle", batch=2)
    kernels = serial_library(made[0], get_target(f"cuda-sm_{SM}"), tmp_path)
    report, text = _run(tmp_path, kernels, tiny_onnx, "--only", "models")
    (row,) = report["models"]
    assert row["batch"] == 2 and row["same_class"] == {"ours": 1.0} and report["kernels"] == []
    assert len(row["milliseconds"]["ours"]["rounds"]) == 2
    assert "PyTorch is left out: PyTorch " in text and "images/s" in text


def test_other_classes_are_not_passed_over(tmp_path: Path, tiny_onnx: Path) -> None:
    """A network that computes something else on the GPU is timed with exit code 0."""
    row = {"batch": 1, "same_class": {"ours": 0.5}, "milliseconds": {}, "times_faster": None, "left_out": "x"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_gpu", lambda: gpu.LocalGpu("G", SM, (12, 2), 1))
        patch.setattr(
            gpu, "Driver", lambda: type("D", (), {"multiprocessors": 1, "clock": 1e9, "close": lambda self: 0})()
        )
        patch.setattr(gpu_models, "measure", lambda *arguments: row)
        result = CliRunner().invoke(gpu.main, [str(tiny_onnx), "--only", "models", "--batch", "1"])
    assert result.exit_code == 1, result.output


def test_tables_compare() -> None:
    """A ratio or a rate stands in the wrong column, or upside down."""
    one = {"median": 2.0, "min": 1.0, "p10": 1.5, "p90": 3.0}
    row = {"model": "M", "batch": 4, "milliseconds": {"ours": one}, "same_class": {"ours": 1.0}, "times_faster": one}
    _, _, ours, ratio = gpu.model_text(row).splitlines()
    assert ours.split() == ["ours", "2.0000", "1.0000", "1.5000", "3.0000", "2000", "100%"]
    assert ratio.endswith("times faster: 2.00 (1.50 to 3.00)")


def test_pytorch_runs_in_half(tiny_onnx: Path) -> None:
    """On a GPU, PyTorch stops at a weight of another dtype, or torch.compile cuts the network into pieces or refuses it."""
    path = tiny_onnx
    reference = open_reference("onnxruntime", path)
    images = np.concatenate([chunk for chunk, _ in reference.default_dataset(2).chunks(2)])
    module = gpu_models.frozen_half(path, reference)
    assert all(parameter.dtype == torch.float16 for parameter in module.parameters())
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    batch = torch.from_numpy(images).half().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        logits = compiled(batch)
    assert logits.dtype == torch.float16 and logits.shape == reference.run(images).shape
    assert bool(torch.isfinite(logits).all())


def _run(folder: Path, kernels: Path, model: Path, *arguments: object) -> tuple[dict, str]:
    """The program on the fake driver, two rounds; its JSON and its output."""
    report = folder / "report.json"
    environment = driver_environment(build_driver(folder), kernels, capability=SM)
    batch = 1 if "gemm" in arguments else 2
    options = ("--batch", batch, "--rounds", 2, "--json", report)
    done = run_python(RUN, PROGRAM, model, *arguments, *options, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text()), done.stdout


def _kernels(folder: Path, groups: list[list[ConvolutionSpecification]]) -> Path:
    """The library for the fake driver: the groups' kernels with threads as loops, and a peak that does nothing."""
    functions, lines = {}, ["#include <stdint.h>", '#define API __attribute__((visibility("default")))']
    for group, layers in enumerate(groups):
        for index, layer in enumerate(layers):
            kernel, symbol = select_gpu_kernel(layer, Gpu(SM)), f"group{group}_{index}"
            raw = raw_pointers(kernel.build().with_attr("bnn.kernel", kernel.name), symbol).function
            assert [launch.symbol for launch in device_kernels(raw)[1]] == [symbol]
            functions[symbol] = serial_threads(raw)
            lines.append(f"API int32_t {symbol}_parameters = {len(raw.params)};")
    lines += [f"API int32_t {gpu_kernels.PEAK}(void *a, void *b) {{ (void)a; (void)b; return 0; }}"]
    lines += [f"API int32_t {gpu_kernels.PEAK}_parameters = 2;"]
    source, objects = folder / "calls.c", folder / "kernels.o"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    target = tvm.target.Target({**get_target("x86-64-v3").llvm, "opt-level": 0})
    tvm.tirx.build(tvm.IRModule(functions), target).write_to_file(str(objects), "o")
    return build_kernels(folder, [source, SERIAL_FUNCTIONS, objects])
