"""Runs GPU schedules of float kernels on this machine, their threads as loops, and makes CUDA of them."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import tvm
from tvm import s_tir, tirx

from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.passes.tir.schedule_gpu import schedule_gpu
from bnn_deploy.passes.tir.serial_threads import serial_threads
from bnn_deploy.plan import Launch
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import get_target, host_target
from tests.cuda.serial import SERIAL_FUNCTIONS, optimised
from tests.passes.execute import shared_library

HOST = host_target()
ORIN = get_target("orin")
SHARED_BYTES = 48 * 1024


@cache
def load_serial_functions() -> None:
    """What serial kernels call, where TVM's just-in-time linker finds it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "functions.so"
        shared_library([SERIAL_FUNCTIONS], path)
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def with_scratch_as_parameters(function: tirx.PrimFunc) -> tirx.PrimFunc:
    if not isinstance(function.body, s_tir.SBlockRealize):
        return function
    root = function.body.block
    return tirx.PrimFunc([*function.params, *root.alloc_buffers], root.body, function.ret_type, function.attrs)


def written(function: tirx.PrimFunc) -> list[bool]:
    """Which parameters the function stores to."""
    stores: list[tirx.BufferStore] = []

    def visit(statement: tirx.Stmt | None) -> None:
        if isinstance(statement, tirx.BufferStore):
            stores.append(statement)
        for part in ("body", "then_case", "else_case"):
            if getattr(statement, part, None) is not None:
                visit(getattr(statement, part))
        for part in getattr(statement, "seq", ()):
            visit(part)

    visit(function.body)
    return [any(store.buffer.same_as(parameter) for store in stores) for parameter in function.params]


def random_arrays(function: tirx.PrimFunc, whole: bool, seed: int = 0) -> list[np.ndarray]:
    """With ``whole`` numbers sums and products are exact: a missing, doubled or misplaced term is all that can show."""
    random = np.random.default_rng(seed)
    arrays = []
    for buffer in function.params:
        shape = [int(extent) for extent in buffer.shape]
        values = np.asarray(random.integers(-4, 5, shape) if whole else random.standard_normal(shape))
        arrays.append(values > 0 if str(buffer.dtype) == "bool" else values.astype(str(buffer.dtype)))
    return arrays


def run_threads(function: tirx.PrimFunc, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All buffers after the launches, whose outputs began as rubbish; both orders of the threads must agree on every bit.

    The rubbish of one order is NaN, that of the other infinite: a sum shows the one, an argmax the other.
    """
    return run_all_threads([function], [arrays])[0]


def run_all_threads(
    functions: Sequence[tirx.PrimFunc], arrays: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    """``run_threads`` of many functions, which is much faster than one after the other."""
    load_serial_functions()
    scheduled = [with_scratch_as_parameters(schedule_gpu(function)) for function in functions]
    wholes = [
        [*given, *random_arrays(function, True)[len(given) :]]
        for function, given in zip(scheduled, arrays, strict=True)
    ]
    upwards, downwards = (
        run_functions(
            [serial_threads(function, order) for function in scheduled],
            [
                [
                    np.full_like(array, number if array.dtype.kind == "f" else 77) if output else array
                    for array, output in zip(whole, written(function), strict=True)
                ]
                for function, whole in zip(scheduled, wholes, strict=True)
            ],
            optimised(HOST, 0),
        )
        for order, number in ((False, np.nan), (True, np.inf))
    )
    for up, down in zip(upwards, downwards, strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(up, down, strict=True))
    return [found[: len(function.params)] for found, function in zip(upwards, functions, strict=True)]


def run_functions(
    functions: Sequence[tirx.PrimFunc], arrays: Sequence[Sequence[np.ndarray]], target: Target = HOST
) -> list[list[np.ndarray]]:
    """All buffers after a call of each function on copies of its arrays."""
    module = {f"k{n}": function.with_attr("global_symbol", f"k{n}") for n, function in enumerate(functions)}
    built = tvm.tirx.build(tvm.IRModule(module), tvm.target.Target(target.llvm))
    results = []
    for number, given in enumerate(arrays):
        tensors = [tvm.runtime.tensor(array) for array in given]
        built[f"k{number}"](*tensors)
        results.append([tensor.numpy() for tensor in tensors])
    return results


def compiled(function: tirx.PrimFunc, symbol: str = "k", sm: int = 87) -> tuple[tuple[Launch, ...], str]:
    """Launches and CUDA source; every launch within the limits of the oldest GPU."""
    kernels, launches = device_kernels(raw_pointers(schedule_gpu(function), symbol).function)
    for launch in launches:
        assert 1 <= launch.block[0] <= 1024 and 1 <= launch.grid[0] < 2**31
        assert launch.block[1:] == launch.grid[1:] == (1, 1)
    source = cuda_source(kernels, sm)
    shared = [int(n) for n in re.findall(r"__shared__ alignas\(\d+\) \w+ \w+\[(\d+)\]", source)]
    assert all(4 * elements <= SHARED_BYTES for elements in shared)
    return launches, source


def kernels_of(source: str) -> str:
    return source[source.index('extern "C" __global__') :]
