"""The C interface of bundles for GPUs, on a fake driver: bad calls, failing kernels, several models, data on the GPU."""

from __future__ import annotations

from pathlib import Path

from bnn_deploy.bundle.bundle import Bundle
from tests.cuda.driver import driver_environment, run_python
from tests.runtime.cuda.runs import NOTHING_LEFT, log_of

INTERFACE = """
import ctypes, sys, threading
import numpy as np
from tests.runtime.toy_network import BATCH, HIDDEN, reference, toy_input
library = ctypes.CDLL(sys.argv[1])
library.bnn_device_error.restype = ctypes.c_char_p
library.bnn_failed_step.restype = ctypes.c_ssize_t
library.bnn_failed_step.argtypes = library.bnn_destroy.argtypes = [ctypes.c_void_p]
library.bnn_run.argtypes = [ctypes.c_void_p] * 3
library.bnn_run_timed.argtypes = [ctypes.c_void_p] * 5
library.bnn_run_device.argtypes = [ctypes.c_void_p] * 4

def create():
    handle = ctypes.c_void_p()
    assert library.bnn_create(1, ctypes.byref(handle)) == 0, library.bnn_device_error()
    return handle

def pointers(array, offset=0):
    return (ctypes.c_void_p * 1)(array.ctypes.data + offset)

def run(handle, array, timed=False):
    result = np.full((BATCH, HIDDEN), np.nan, np.float32)
    if not timed:
        return library.bnn_run(handle, pointers(array), pointers(result)), result
    seconds = np.zeros(3)
    return library.bnn_run_timed(handle, pointers(array), pointers(result), seconds.ctypes.data, seconds[2:].ctypes.data), result
"""


def check_interface(script: str, bundle: Bundle, environment: dict[str, str]) -> None:
    result = run_python(INTERFACE + script, bundle.library, environment=environment)
    assert (result.returncode, result.stderr) == (0, "")


def test_arguments_and_alignment(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """Null pointers or thread counts get through, buffers at odd addresses do not, or the next failing step is not told."""
    script = """
handle, array = create(), toy_input()
assert run(None, array)[0] == 1 and library.bnn_run(handle, None, pointers(array)) == 1
assert library.bnn_run(handle, (ctypes.c_void_p * 1)(), pointers(array)) == 1
assert library.bnn_create(0, ctypes.byref(ctypes.c_void_p())) == library.bnn_create(257, ctypes.byref(ctypes.c_void_p())) == 1
assert library.bnn_set_threads(handle, 0) == 1 and library.bnn_set_threads(handle, 4) == 0
room = np.zeros(1000, np.uint8)
room[3 : 3 + array.nbytes] = array.view(np.uint8).reshape(-1)
assert library.bnn_run(handle, pointers(room, 3), pointers(room, 501)) == 0
assert room[501 : 501 + 320].tobytes() == reference(array).tobytes()
# Three launches went into the graph; of the timed run, the second one fails.
assert run(handle, array, timed=True)[0] == 6 and library.bnn_failed_step(handle) == 1
assert b"cuLaunchKernel of gpu_sums failed with CUDA_ERROR_INVALID_VALUE" in library.bnn_device_error()
status, result = run(handle, array, timed=True)
assert status == 0 and library.bnn_failed_step(handle) == -1 and np.array_equal(result, reference(array))
library.bnn_destroy(handle)
library.bnn_destroy(None)
"""
    environment = driver_environment(driver, kernels, log=tmp_path / "log", fail="cuLaunchKernel:5:1")
    check_interface(script, bundle, environment)
    assert log_of(tmp_path)[NOTHING_LEFT] == 1


def test_a_failing_kernel(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """A kernel that fails within the graph goes unseen, or a model after it does."""
    script = """
handle, array = create(), toy_input()
array[0, 0] = 666
assert run(handle, array)[0] == 6 and library.bnn_failed_step(handle) == -1
assert b"CUDA_ERROR_LAUNCH_FAILED; start the program again" in library.bnn_device_error()
assert run(handle, toy_input())[0] == 6
assert library.bnn_create(1, ctypes.byref(ctypes.c_void_p())) == 6
library.bnn_destroy(handle)
"""
    check_interface(script, bundle, driver_environment(driver, kernels))


def test_models_are_independent(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """Two models share a buffer, two runs of one model meet, or errors of one thread are another's."""
    script = """
first, second = create(), create()
slow, results = toy_input(), {}
slow[0, 0] = 777
def run_slowly():
    results["slow"] = run(first, slow)
    while results["slow"][0] == 5:  # the loop below was there before
        results["slow"] = run(first, slow)
thread = threading.Thread(target=run_slowly)
thread.start()
statuses = set()
while thread.is_alive():
    statuses.add(run(first, toy_input())[0])
thread.join()
assert 5 in statuses and statuses <= {0, 5}, statuses
assert results["slow"][0] == 0 and np.array_equal(results["slow"][1], reference(slow))

wrong = []
def repeat(handle, seed):
    for i in range(100):
        status, result = run(handle, toy_input(seed=seed + i))
        if status != 0 or not np.array_equal(result, reference(toy_input(seed=seed + i))):
            wrong.append((seed, i, status))
threads = [threading.Thread(target=repeat, args=(h, s)) for h, s in ((first, 10), (second, 1000))]
[t.start() for t in threads]
[t.join() for t in threads]
assert not wrong, wrong[:3]
library.bnn_destroy(first)
assert run(second, toy_input())[0] == 0
library.bnn_destroy(second)
"""
    check_interface(script, bundle, driver_environment(driver, kernels, log=tmp_path / "log"))
    assert log_of(tmp_path)[NOTHING_LEFT] == 1


def test_data_on_the_gpu(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """bnn_run_device waits for the GPU, does not keep to the order of runs on different streams, or is undone by bnn_destroy."""
    script = """
driver = ctypes.CDLL("libcuda.so.1")
handle = create()
context, streams = ctypes.c_void_p(), [ctypes.c_void_p(), ctypes.c_void_p()]
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0 and driver.cuCtxPushCurrent_v2(context) == 0
u64, size = ctypes.c_uint64, ctypes.c_size_t
def allocate(nbytes):
    memory = u64()
    assert driver.cuMemAlloc_v2(ctypes.byref(memory), size(nbytes)) == 0
    return memory
ins, outs, results = [allocate(384), allocate(384)], [allocate(320), allocate(320)], []
for stream, memory, seed in zip(streams, ins, (1, 2)):
    assert driver.cuStreamCreate(ctypes.byref(stream), 1) == 0
    array = toy_input(seed=seed)
    assert driver.cuMemcpyHtoDAsync_v2(memory, ctypes.c_void_p(array.ctypes.data), size(384), stream) == 0
def start(i):
    return library.bnn_run_device(handle, (u64 * 1)(ins[i]), (u64 * 1)(outs[i]), streams[i])
def fetch(i):
    result = np.zeros((BATCH, HIDDEN), np.float32)
    assert driver.cuMemcpyDtoHAsync_v2(ctypes.c_void_p(result.ctypes.data), outs[i], size(320), streams[i]) == 0
    assert driver.cuStreamSynchronize(streams[i]) == 0
    return result
assert library.bnn_run_device(handle, (u64 * 1)(0), (u64 * 1)(outs[0]), None) == 1
# Both are in their streams before either one is waited for; then a run from here, and the later stream first.
assert start(0) == 0 and start(1) == 0
status, here = run(handle, toy_input(seed=3))
assert status == 0 and np.array_equal(here, reference(toy_input(seed=3)))
assert np.array_equal(fetch(1), reference(toy_input(seed=2))) and np.array_equal(fetch(0), reference(toy_input(seed=1)))
assert start(1) == 0 and start(0) == 0
library.bnn_destroy(handle)
assert np.array_equal(fetch(0), reference(toy_input(seed=1))) and np.array_equal(fetch(1), reference(toy_input(seed=2)))
for memory in ins + outs:
    assert driver.cuMemFree_v2(memory) == 0
for stream in streams:
    assert driver.cuStreamDestroy_v2(stream) == 0
assert driver.cuDevicePrimaryCtxRelease(0) == 0
"""
    check_interface(script, bundle, driver_environment(driver, kernels, log=tmp_path / "log"))
    log = (tmp_path / "log").read_text().splitlines()
    assert NOTHING_LEFT in log
    assert "cuStreamWaitEvent" in log
