"""Every kernel bank on the GPU of this machine, bit for bit against references that know nothing of bits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from benchmarks.cuda_driver import Driver
from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.targets.cuda.local_gpu import local_gpu
from tests.gpu.bank import Call, calls, device_source, kernels_for

pytestmark = pytest.mark.gpu

# Kernels that one compilation holds: enough work for each processor, little enough for all of them.
TOGETHER = 8
# Bytes around every buffer, and what they hold; buffers begin at what cuMemAlloc aligns to.
GUARD = 256
UNTOUCHED = 0xA5


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    """The GPU."""
    opened = Driver()
    yield opened
    opened.close()


@pytest.mark.parametrize("group", ["packing", "branches", "edges", "layers"])
def test_bank(driver: Driver, group: str) -> None:
    """A kernel computes something else on the GPU than as loops on a processor, or writes where it must not."""
    sm, found = local_gpu().sm, []
    # Architectures differ in dot products only.
    bank = [call for one in (kernels_for(sm) if group in ("edges", "layers") else [sm]) for call in calls(group, one)]
    assert bank
    chunks = [bank[first : first + TOGETHER] for first in range(0, len(bank), TOGETHER)]
    sources = [device_source(chunk, sm) for chunk in chunks]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = pool.map(lambda source: compile_cuda(source[0], sm), sources)
        for chunk, (_, launches), code in zip(chunks, sources, codes, strict=True):
            module = driver.load(code.cubin)
            for call in chunk:
                found += [
                    f"{call.name}: {problem}" for problem in problems(driver, module, call, launches[call.symbol])
                ]
            driver.unload(module)
    assert found == []


@pytest.mark.parametrize("group", ["packing", "layers"])
def test_ptx_runs_as_well(driver: Driver, group: str) -> None:
    """The driver refuses the PTX that newer GPUs and older drivers take, or its translation computes something else."""
    sm = local_gpu().sm
    (call,) = calls(group, sm)[:1]
    source, launches = device_source([call], sm)
    module = driver.load(compile_cuda(source, sm).ptx.encode() + b"\0")
    assert problems(driver, module, call, launches[call.symbol]) == []
    driver.unload(module)


def problems(driver: Driver, module: object, call: Call, launches: Sequence) -> list[str]:
    """Run a call; which outputs differ, and whether anything else was written."""
    places, used = [], GUARD
    for array in (*call.inputs, *call.outputs):
        places.append(used)
        used += -(-array.nbytes // GUARD) * GUARD + GUARD
    wanted = np.full(used, UNTOUCHED, np.uint8)
    for array, place in zip(call.inputs, places, strict=False):
        wanted[place : place + array.nbytes] = array.reshape(-1).view(np.uint8)
    memory = driver.allocate(used)
    driver.upload(memory, wanted)
    for launch in launches:
        driver.launcher(module, launch, [memory + place for place in places])()
    result = np.empty_like(wanted)
    driver.download(memory, result)
    driver.free(memory)
    found = []
    for number, (output, place) in enumerate(zip(call.outputs, places[len(call.inputs) :], strict=True)):
        region = slice(place, place + output.nbytes)
        expected = np.ascontiguousarray(output).reshape(-1)
        wrong = int((result[region].view(np.uint32) != expected.view(np.uint32)).sum())
        found += [f"{wrong} of {output.size} elements of output {number} differ"] * bool(wrong)
        wanted[region] = result[region]
    if not np.array_equal(result, wanted):
        found.append(f"written outside of the outputs, first at byte {int(np.argmax(result != wanted))}")
    return found
