"""Binary kernels on the GPU of this machine, and the most that its b1 tensor-core instruction gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import tvm
from cuda_driver import Driver
from interleaved import in_turns, spread

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.plan import Launch
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda import device_functions
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.table import select_gpu_kernel

_DEVICE_FUNCTIONS = Path(device_functions.__file__).with_name("device_functions.cuh")
# Seconds that the calls of one turn take together; events are good to half a microsecond.
TURN = 2e-3
# The instruction's m16n8k256, or what device_functions.cuh makes of four smaller ones.
MMA_MACS = 16 * 8 * 256
# An mma takes some tens of clocks, and a new one begins every few: 16 warps of an SM with 8 independent sums each hide that.
PEAK_THREADS, PEAK_BLOCKS_PER_SM, PEAK_SUMS, PEAK_ITERATIONS = 256, 2, 8, 2048
PEAK = "bnn_b1_peak"
_PEAK_SOURCE = f"""
extern "C" __global__ void __launch_bounds__({PEAK_THREADS}) {PEAK}(const unsigned *operands, int *results) {{
    unsigned a[4], b[{PEAK_SUMS}][2];
    int c[{PEAK_SUMS}][4] = {{}};
    const unsigned *own = operands + (threadIdx.x & 31);
    for (int i = 0; i < 4; ++i) a[i] = own[32 * i];
    for (int i = 0; i < {PEAK_SUMS}; ++i) {{
        b[i][0] = own[32 * (4 + 2 * i)];
        b[i][1] = own[32 * (5 + 2 * i)];
    }}
    for (int turn = 0; turn < {PEAK_ITERATIONS}; ++turn) {{
#pragma unroll
        for (int i = 0; i < {PEAK_SUMS}; ++i) MMA(c[i], a, b[i]);
    }}
    int sum = 0;
    for (int i = 0; i < {PEAK_SUMS}; ++i) sum += c[i][0] ^ c[i][1] ^ c[i][2] ^ c[i][3];
    results[blockIdx.x * {PEAK_THREADS} + threadIdx.x] = sum;
}}
"""
PEAK_OPERANDS = 32 * (4 + 2 * PEAK_SUMS)


def peak_source(sm: int) -> str | None:
    """CUDA C of a loop of independent mma on registers, in the form that kernels for ``sm`` use; None where that is ``__popc``.

    Its kernel ``bnn_b1_peak`` takes uint32 ``(PEAK_OPERANDS,)`` and int32 ``(threads,)``; each warp makes
    ``PEAK_SUMS * PEAK_ITERATIONS`` times ``MMA_MACS`` multiply-accumulates.
    """
    product = architecture(sm).dot_product
    if product == "popc":
        return None
    return _DEVICE_FUNCTIONS.read_text(encoding="utf-8") + _PEAK_SOURCE.replace(
        "MMA(", f"bnn_mma_{product.partition('_')[0]}("
    )


def measure(
    driver: Driver, sm: int, layers: Sequence[ConvolutionSpecification], rounds: int, prefix: str = "kernel"
) -> list[dict[str, object]]:
    """Time the kernel of each layer, in turns, each next to the peak.

    Args:
        driver: of the GPU.
        sm: its compute capability times ten.
        layers: what to compute, each once.
        rounds: how often everything has its turn.
        prefix: of the kernels' names on the GPU.

    Returns:
        one row per layer: its kernel and specification, ``macs``, and of all rounds ``seconds``, ``rate`` (of one call, and
        per second), ``per_clock`` (of one SM at its highest clock), ``peak`` (the peak's rate at that moment) and
        ``of_peak``; the last two are None where there is no b1 mma.
    """
    kernels = [select_gpu_kernel(layer, Gpu(sm)) for layer in layers]
    with ExitStack() as memory:
        runs = _launchers(driver, sm, kernels, prefix, memory)
        peak = _peak(driver, sm, memory)
        timers = {str(index): partial(_beside, _timer(driver, run), peak) for index, run in enumerate(runs)}
        measured = in_turns(timers, rounds)
    rows = []
    for kernel, pairs in zip(kernels, measured.values(), strict=True):
        seconds, peaks = np.array(pairs).T
        macs = kernel.binary_macs
        rates = macs / seconds
        rows.append(
            {
                "kernel": kernel.name,
                "specification": asdict(kernel.specification),
                "macs": macs,
                "seconds": spread(seconds),
                "rate": spread(rates),
                "per_clock": spread(rates / (driver.clock * driver.multiprocessors)),
                "peak": spread(peaks) if peak else None,
                "of_peak": spread(rates / peaks) if peak else None,
            }
        )
    return rows


def _beside(timer: Callable[[], float], peak: Callable[[], float] | None) -> tuple[float, float]:
    return timer(), peak() if peak else np.nan


def _launchers(
    driver: Driver, sm: int, kernels: Sequence[Kernel], prefix: str, memory: ExitStack
) -> list[Callable[[], None]]:
    """What puts one call of each kernel, on random operands, into the stream."""
    parts, launches, sizes = [], [], []
    for index, kernel in enumerate(kernels):
        function = kernel.build()
        raw = raw_pointers(function.with_attr("bnn.kernel", kernel.name), f"{prefix}_{index}").function
        own, its_launches = device_kernels(raw)
        parts += own
        launches.append(its_launches)
        sizes.append([(tuple(map(int, one.shape)), str(one.dtype)) for one in function.params])
    module = driver.load(compile_cuda(cuda_source(parts, sm), sm).cubin)
    random = np.random.default_rng(0)
    runs = []
    for its_launches, buffers in zip(launches, sizes, strict=True):
        addresses = [_operand(driver, memory, random, shape, dtype) for shape, dtype in buffers]
        calls = [driver.launcher(module, launch, addresses) for launch in its_launches]
        runs.append(partial(_all, calls))
    return runs


def _all(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _operand(driver: Driver, memory: ExitStack, random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> int:
    """Address of random bits, or of floats near 1, that are no special values."""
    words = prod(shape) * tvm.runtime.DataType(dtype).itemsize // 4
    data = random.random(words, np.float32) if dtype == "float32" else random.integers(0, 2**32, words, np.uint32)
    address = _room(driver, memory, data.nbytes)
    driver.upload(address, data)
    return address


def _room(driver: Driver, memory: ExitStack, count: int) -> int:
    address = driver.allocate(count)
    memory.callback(driver.free, address)
    return address


def _timer(driver: Driver, run: Callable[[], None]) -> Callable[[], float]:
    """What measures the seconds of one call, among as many calls in one graph as a turn has time for."""
    run()
    once = driver.time(run)
    # The first call's time has the launch in it, which makes short kernels look long.
    calls = min(500, max(1, int(TURN / max(once, 1e-6))))
    if calls == 1:
        return lambda: driver.time(run)
    graph = driver.graph(lambda: _all([run] * calls))
    graph()
    return lambda: driver.time(graph) / calls


def _peak(driver: Driver, sm: int, memory: ExitStack) -> Callable[[], float] | None:
    """What measures the multiply-accumulates per second of the peak's loop; None where there is no b1 mma."""
    source = peak_source(sm)
    if source is None:
        return None
    blocks = PEAK_BLOCKS_PER_SM * driver.multiprocessors
    operands = _operand(driver, memory, np.random.default_rng(1), (PEAK_OPERANDS,), "uint32")
    results = _room(driver, memory, 4 * blocks * PEAK_THREADS)
    launch = Launch(PEAK, (blocks, 1, 1), (PEAK_THREADS, 1, 1))
    run = driver.launcher(driver.load(compile_cuda(source, sm).cubin), launch, [operands, results])
    run()
    macs = blocks * (PEAK_THREADS // 32) * PEAK_SUMS * PEAK_ITERATIONS * MMA_MACS
    return lambda: macs / driver.time(run)
