"""Whole networks for GPUs on a machine without one: their machine code looked at, and their bundles run on the fake driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bnn_deploy import compiler
from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.passes.pipeline import Lowered
from bnn_deploy.passes.tir.cuda_source import cuda_source
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.registry import get_target
from tests.cuda.disassembly import assert_native, kernel_code
from tests.cuda.driver import build_driver, driver_environment, run_python
from tests.cuda.serial_library import serial_library

_RUN = """
import sys
import numpy as np
import bnn_deploy
bundle, images, logits = sys.argv[1:]
np.save(logits, bnn_deploy.load(bundle)(np.load(images)))
"""


def check_machine_code(lowered: Lowered, target: Target) -> None:
    """Compile a network's kernels; the binary ones must consist of the instruction that the target's GPU has for them."""
    code = kernel_code(compile_cuda(cuda_source(lowered.launched, target.gpu.sm), target.gpu.sm).cubin)
    launches = {launch.symbol for step in lowered.plan.steps for launch in step.launches}
    assert set(code) == launches
    binary = [launch.symbol for step in lowered.plan.steps if step.kind == "binary" for launch in step.launches]
    assert binary
    for symbol in dict.fromkeys(binary):
        assert_native(code[symbol], architecture(target.gpu.sm).dot_product if "_mma_" in symbol else "popc")


def logits_on_fake_gpu(
    onnx: Path, images: np.ndarray, target: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """What the bundle for a GPU target computes: its own runtime, its plan, and the kernels with their threads as loops.

    Args:
        onnx: the network.
        images: a multiple of the batch that it is compiled with, which is theirs.
        target: one with an x86-64 processor.
        folder: empty.
        monkeypatch: lets the kernels be seen that the compiler makes.
    """
    made: list[Lowered] = []
    original = compiler.lower

    def lower(*arguments: object) -> Lowered:
        made.append(original(*arguments))
        return made[-1]

    monkeypatch.setattr(compiler, "lower", lower)
    compiler.compile_model(onnx, target, folder / "bundle", batch=len(images))
    gpu = get_target(target)
    kernels = serial_library(made[0], gpu, folder)
    np.save(folder / "images.npy", images)
    environment = driver_environment(build_driver(folder), kernels, capability=gpu.gpu.sm)
    done = run_python(
        _RUN, *(folder / name for name in ("bundle", "images.npy", "logits.npy")), environment=environment
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "logits.npy")
