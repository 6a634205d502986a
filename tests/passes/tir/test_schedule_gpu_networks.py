"""schedule_gpu on the float kernels of a whole network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tvm import tirx

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.passes.pipeline import lower
from bnn_deploy.passes.tir import kernel_set
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.targets.base import Target
from tests.passes.gpu_threads import HOST, compiled, kernels_of, random_arrays, run_all_threads, run_functions


@pytest.fixture(scope="module")
def float_steps(tiny_onnx: Path) -> list[tirx.PrimFunc]:
    """All float kernels of a network of the zoo, unscheduled."""
    found: list[tirx.PrimFunc] = []

    def schedule(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
        if "bnn.kernel" not in function.attrs:
            found.append(function)
        return schedule_float(function, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_set, "schedule_float", schedule)
        lower(onnx.load(tiny_onnx), HOST, 2)
    return found


def test_every_float_step_of_a_network_computes_what_processors_compute(float_steps: list[tirx.PrimFunc]) -> None:
    """Breaks: what the passes leave of a real network, fused chains of many operators, differs from its CPU kernels."""
    assert len(float_steps) > 20
    arrays = [random_arrays(function, False) for function in float_steps]
    scheduled = [schedule_float(function, HOST) for function in float_steps]
    processors = run_functions(scheduled, arrays)
    for expected, found in zip(processors, run_all_threads(float_steps, arrays), strict=True):
        # Only sums differ, by their order: at most 64 terms of like size, each rounded once in both orders, so that
        # 2 * 64 * 2**-24 = 7.6e-6 of the largest value bounds the difference.
        bound = 1e-5 * np.abs(expected[-1]).max()
        np.testing.assert_allclose(found[-1], expected[-1], rtol=0, atol=bound)


def test_every_float_step_of_a_network_is_cuda(float_steps: list[tirx.PrimFunc]) -> None:
    """Breaks: a network's float operator has no CUDA source, or one that no GPU can launch."""
    sources = [compiled(function, f"k{number}", 53)[1] for number, function in enumerate(float_steps)]
    head = sources[0][: -len(kernels_of(sources[0]))]
    assert compile_cuda(head + "\n".join(kernels_of(source) for source in sources), 53).cubin[:4] == b"\x7fELF"
