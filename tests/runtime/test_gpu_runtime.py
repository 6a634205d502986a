"""The C runtime of bundles for GPUs, on a fake driver: same bits, one graph per run, nothing left, one sentence for any trouble."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.codegen.linker import GPU_MODEL_SOURCES, RUNNER_SOURCES, RUNTIME_SOURCES, _write_network
from tests.cuda.driver import build_driver, build_kernels, driver_environment, run_python
from tests.cuda.toy_gpu_network import BOARD, CODE, KERNELS, toy_gpu_bundle, toy_gpu_plan, toy_gpu_taps
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import toy_bytes, toy_values

ROOT = Path(__file__).parents[2]
NOTHING_LEFT = "left: 0 memory 0 streams 0 events 0 graphs 0 executables 0 modules 0 contexts"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="session")
def driver(folder: Path) -> Path:
    return build_driver(folder)


@pytest.fixture(scope="session")
def kernels(folder: Path) -> Path:
    return build_kernels(folder, [KERNELS])


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return toy_gpu_bundle(folder)


def run_runner(
    runner: Path, folder: Path, array: np.ndarray, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    np.save(folder / "x.npy", array)
    command = [str(runner), "--input", "x.npy", *(options or ("--output", "y.npy"))]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def log_of(folder: Path) -> Counter[str]:
    return Counter((folder / "log").read_text().splitlines())


def test_a_run_is_one_graph(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """The runner gives other bits than numpy, launches kernels one by one, or leaves something on the GPU."""
    array = toy_input(rows=6)
    result = run_runner(bundle.runner, tmp_path, array, driver_environment(driver, kernels, log=tmp_path / "log"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(array))
    log = log_of(tmp_path)
    # Three batches; the kernels were launched once, into the graph, and weights are copied before the first input.
    assert (log["cuGraphLaunch"], log["cuLaunchKernel"], log["cuStreamSynchronize"]) == (3, 3, 3 + 1)
    assert (log["cuMemcpyHtoDAsync_v2"], log["cuMemcpyDtoHAsync_v2"], log["cuMemAlloc_v2"]) == (1 + 3, 3, 1)
    assert log["launch gpu_scale 1x1x1 96x1x1"] == log["launch gpu_sums 40x2x1 48x1x1"] == 1
    assert (log["cubin"], log["ptx"], log[NOTHING_LEFT]) == (1, 0, 1)


def test_profile_times_steps_with_events(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """Steps are not timed on the GPU, the profile does not say what GPU it was, or its JSON is not the schema's."""
    environment = driver_environment(driver, kernels, log=tmp_path / "log")
    options = ("--profile", "p.json", "--repeat", "2", "--warmup", "1")
    slow = toy_input()
    slow[0, 0] = 777  # half a second in the first of two steps
    result = run_runner(bundle.runner, tmp_path, slow, environment, *options)
    assert (result.returncode, result.stderr) == (0, "") and 'GPU: Fake "GPU" 0\n' in result.stdout
    profile = json.loads((tmp_path / "p.json").read_text())
    jsonschema.validate(profile, json.loads((ROOT / "docs/schemas/runner_profile.schema.json").read_text()))
    # usleep takes no less than it is told to, and the event's milliseconds are float32.
    assert all(first > 0.499 and second < 0.4 for first, second in profile["step_seconds"])
    assert all(t >= sum(s) * (1 - 1e-6) for t, s in zip(profile["total_seconds"], profile["step_seconds"], strict=True))
    assert profile["gpu"]["name"] == 'Fake "GPU" 0' and profile["gpu"]["compute_capability"] == 87
    assert profile["gpu"]["memory_bus_bits"] is None and profile["copy_bytes_per_second"] is None
    log = log_of(tmp_path)
    assert (log["cuGraphLaunch"], log["cuLaunchKernel"], log["cuEventElapsedTime"]) == (1, 3 + 2 * 3, 2 * 2)
    assert log[NOTHING_LEFT] == 1


def test_information_needs_no_gpu(bundle: Bundle, driver: Path, tmp_path: Path) -> None:
    """--info fails on a machine without a GPU, or does not say what is missing."""
    for environment, line in (
        (driver_environment(None, None), "GPU: libcuda.so.1 was not found; install NVIDIA's driver"),
        (driver_environment(driver, None), 'GPU: Fake "GPU" 0, compute capability 8.7\n'),
    ):
        result = subprocess.run([bundle.runner, "--info"], env=environment, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
        assert line in result.stdout and "(matmul)" in result.stdout and "memory: 9984 bytes\n" in result.stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"devices": 0}, r"cuInit failed with CUDA_ERROR_NO_DEVICE; see that a GPU is there"),
        ({"version": 10010}, r"driver supports CUDA up to 10\.1; update it to one for CUDA 10\.2"),
        ({"capability": 72}, r"compute capability 7\.2, the network was compiled for 8\.7; .*--arch sm_72"),
        ({"memory": 9983}, r"cuMemAlloc of 9984 bytes failed with CUDA_ERROR_OUT_OF_MEMORY; free memory"),
        ({"fail": "cuInit:1:803"}, r"cuInit failed with CUDA_ERROR_SYSTEM_DRIVER_MISMATCH; start the machine again"),
        ({"fail": "cuInit:1:12345"}, r"cuInit failed with an error without a name; see whether other CUDA programs"),
        ({"fail": "cuModuleLoadData:1:2"}, r"cuModuleLoadData failed with CUDA_ERROR_OUT_OF_MEMORY"),
        ({"fail": "cuLaunchKernel:2:1"}, r"cuLaunchKernel of gpu_sums failed with CUDA_ERROR_INVALID_VALUE"),
        (
            {"fail": "cuGraphLaunch:1:700"},
            r"cuGraphLaunch failed with CUDA_ERROR_ILLEGAL_ADDRESS; start the program again",
        ),
        (
            {"refuse": "cubin,ptx"},
            r"driver, for CUDA up to 12\.2, takes neither the network's machine code \(CUDA_ERROR_NO_BINARY_FOR_GPU\) nor its "
            r"PTX \(CUDA_ERROR_UNSUPPORTED_PTX_VERSION: ptxas fatal   : Unsupported \.version 7\.4; current version is "
            r"'6\.5'\); update NVIDIA's driver to one for CUDA 12\.2, or 11\.4 for the PTX, or newer",
        ),
    ],
)
def test_trouble_is_one_sentence(
    bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    """Trouble with driver or GPU is a crash, several lines, no advice, or leaves memory on the GPU."""
    environment = driver_environment(driver, kernels, log=tmp_path / "log", **settings)
    result = run_runner(bundle.runner, tmp_path, toy_input(), environment)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"runner: the GPU cannot be used: [^\n]*{message}[^\n]*\.\n", result.stderr), result.stderr
    assert not (tmp_path / "y.npy").exists()


def test_driver_without_functions(bundle: Bundle, tmp_path: Path) -> None:
    """A driver of before, or no driver at all, is a null pointer."""
    (tmp_path / "libcuda.so.1").write_bytes(b"not a library")
    result = run_runner(bundle.runner, tmp_path, toy_input(), driver_environment(tmp_path / "libcuda.so.1", None))
    assert result.returncode == 2 and "NVIDIA's driver cannot be loaded (" in result.stderr
    library = build_kernels(tmp_path, [KERNELS])
    library.rename(tmp_path / "libcuda.so.1")
    result = run_runner(bundle.runner, tmp_path, toy_input(), driver_environment(tmp_path / "libcuda.so.1", None))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "NVIDIA's driver has no cu" in result.stderr and "update it to one for CUDA 10.2" in result.stderr


FUNCTIONS = re.findall(r"function\((cu\w+),", (RUNTIME_SOURCES / "cuda/driver.h").read_text())


def test_every_failure_gives_everything_back(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """A failure of some function of the driver goes unseen, or what was made before it stays on the GPU."""
    releasing = {name for name in FUNCTIONS if re.search("Release|Pop|Unload|Free|Destroy|ErrorName", name)}
    unused = {"cuGraphInstantiate", "cuGraphInstantiate_v2", "cuModuleLoadDataEx", "cuMemcpyDtoDAsync_v2"}
    unused |= {"cuStreamWaitEvent", "cuEventSynchronize"}
    # What only describes the GPU may fail: it is then unknown. A cubin that fails is not the end: there is PTX.
    harmless = {"cuDeviceGetAttribute", "cuDeviceTotalMem_v2", "cuModuleLoadData", "cuDeviceGetName"}
    for name in sorted(set(FUNCTIONS) - releasing - unused):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        environment = driver_environment(driver, kernels, log=log, fail=f"{name}:1:700")
        options = ("--profile", "p.json", "--output", "y.npy", "--repeat", "1")
        result = run_runner(bundle.runner, tmp_path, toy_input(), environment, *options)
        assert name in log.read_text().splitlines(), name
        if name in harmless:
            assert result.returncode == 0, (name, result.stderr)
        else:
            assert result.returncode == 2 and result.stderr.count("\n") == 1, (name, result.stderr)
            assert f"{name.removesuffix('_v2')}" in result.stderr and "CUDA_ERROR_ILLEGAL_ADDRESS" in result.stderr
        # After a failure of a model that was made the runner ends as it is: the process gives all of it back.
        created = "cuGraphInstantiateWithFlags" in log.read_text() and name != "cuGraphInstantiateWithFlags"
        assert created or log_of(tmp_path)[NOTHING_LEFT] == 1, (name, log.read_text())


def test_ptx_is_taken_where_the_cubin_is_not(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """On a newer GPU, or with an older driver, the network does not run."""
    environment = driver_environment(driver, kernels, log=tmp_path / "log", refuse="cubin", capability=90)
    result = run_runner(bundle.runner, tmp_path, toy_input(), environment)
    assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))
    assert (log_of(tmp_path)["cubin"], log_of(tmp_path)["ptx"]) == (1, 1)


def test_driver_of_cuda_10_2(bundle: Bundle, kernels: Path, tmp_path: Path) -> None:
    """JetPack 4's driver, which has graphs under an older name, does not run the network."""
    old = build_driver(tmp_path, options=["-DCUDA_10_2"])
    environment = driver_environment(old, kernels, log=tmp_path / "log", version=10020, refuse="cubin")
    result = run_runner(bundle.runner, tmp_path, toy_input(), environment)
    assert (result.returncode, result.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))
    assert log_of(tmp_path)["cuGraphInstantiate"] == 1 and log_of(tmp_path)[NOTHING_LEFT] == 1


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


LOCAL = """
import sys
import numpy as np
import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.local import LocalDevice
from bnn_deploy.errors import DeviceError
from bnn_deploy.profiling.measuring import profile_bundle
from bnn_deploy.profiling.reading import profile_from_json
from tests.runtime.toy_network import reference, toy_input
bundle = Bundle.open(sys.argv[1])
"""


def test_python_and_the_local_device(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """Python gives other bits, or the report of a profile does not name the GPU, or cannot be read back."""
    script = LOCAL + (
        "array = toy_input(rows=4)\n"
        "assert np.array_equal(bnn_deploy.load(bundle.path)(array), reference(array))\n"
        "assert np.array_equal(LocalDevice().run(bundle, array), reference(array))\n"
        "report = profile_bundle(bundle, LocalDevice(), repeat=3)\n"
        "assert report.boards[0].gpu.compute_capability == 87 and report.boards[0].gpu.memory_bus_bits is None\n"
        "import json, jsonschema\n"
        "value = json.loads(json.dumps(report.to_dict()))\n"
        "assert profile_from_json(value, 'report') == report\n"
        "jsonschema.validate(value, json.load(open('docs/schemas/profile.schema.json')))\n"
    )
    result = run_python(script, bundle.path, environment=driver_environment(driver, kernels))
    assert (result.returncode, result.stderr) == (0, "")


def test_python_explains_a_missing_gpu(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """A machine without this GPU gets a traceback, or several sentences, from Python or the command line's device."""
    script = LOCAL + (
        "for start in (lambda: bnn_deploy.load(bundle.path), lambda: LocalDevice().open(bundle)):\n"
        "    try:\n"
        "        start()\n"
        "    except DeviceError as error:\n"
        "        print(error)\n"
    )
    for environment, reason in (
        (driver_environment(None, None), r"libcuda\.so\.1 was not found; install NVIDIA's driver[^.]*"),
        (
            driver_environment(driver, kernels, devices=0),
            "cuInit failed with CUDA_ERROR_NO_DEVICE; see that a GPU is there.*",
        ),
        (driver_environment(driver, kernels, capability=75), ".* compute capability 7.5.* sm_75|.* has 7.5; .* sm_75"),
    ):
        result = run_python(script, bundle.path, environment=environment)
        assert (result.returncode, result.stderr) == (0, "")
        start = rf"The bundle {re.escape(str(bundle.path))} needs an NVIDIA GPU of compute capability 8\.7 or newer: "
        lines = result.stdout.splitlines()
        assert len(lines) == 2 and all(re.fullmatch(rf"{start}({reason})\.", line) for line in lines), result.stdout


def test_tvm_is_told_what_is_wrong(bundle: Bundle, driver: Path) -> None:
    """A board behind TVM's RPC says that its GPU cannot be used, and not why."""
    script = (
        "import sys, tvm\n"
        "library = tvm.runtime.load_module(sys.argv[1])\n"
        "assert library['bnn_create'](1) == -6\n"
        "text = tvm.runtime.empty((4096,), 'uint8')\n"
        "length = library['bnn_device_error'](text)\n"
        "print(text.numpy()[:length].tobytes().decode())\n"
    )
    result = run_python(script, bundle.library, environment=driver_environment(driver, None, devices=0))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("cuInit failed with CUDA_ERROR_NO_DEVICE; see that a GPU is there")


def test_runner_under_sanitizers(driver: Path, kernels: Path, tmp_path: Path) -> None:
    """The runtime reads or writes out of bounds, leaks, or does what C does not define; also when the driver fails."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc is installed")
    plan = toy_gpu_plan()
    _write_network(tmp_path, plan, CODE)
    sources = [str(RUNTIME_SOURCES / name) for name in (*GPU_MODEL_SOURCES, *RUNNER_SOURCES)]
    options = ("-std=c11", "-O1", "-g", "-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-overlength-strings", "-I", str(RUNTIME_SOURCES))
    command = ["gcc", *options, *warnings, *sources, "plan.c", "weights.S", "cubin.S", "ptx.S", "-o", "runner"]
    built = subprocess.run([*command, "-lm", "-lpthread", "-ldl"], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    np.save(tmp_path / "t.npy", toy_gpu_taps(["scaled"]))
    np.save(tmp_path / "f.npy", toy_bytes(toy_values(toy_input(), {})[0]))
    taps = ("--taps", "t.npy", "--observed", "o.npy", "--forced", "f.npy")
    both = ("--profile", "p.json", "--output", "y.npy", "--repeat", "2", *taps)
    for settings, status in (
        ({}, 0),
        ({"refuse": "cubin"}, 0),
        ({"refuse": "cubin,ptx"}, 2),
        ({"memory": 100}, 2),
        ({"fail": "cuGraphInstantiateWithFlags:1:1"}, 2),
        ({"fail": "cuEventCreate:3:2"}, 2),
        ({"fail": "cuMemcpyHtoDAsync_v2:8:700"}, 2),
    ):
        result = run_runner(
            tmp_path / "runner", tmp_path, toy_input(), driver_environment(driver, kernels, **settings), *both
        )
        assert result.returncode == status and "Sanitizer" not in result.stderr, (settings, result.stderr)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(toy_input()))


def test_example_program(bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path) -> None:
    """examples/c/main.c does not link with the archive of a bundle for a GPU, or gives other bits."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    source, libraries = ROOT / "examples" / "c" / "main.c", ("-lm", "-lpthread", "-ldl")
    command = [compiler, source, "-I", bundle.path, bundle.static_library, *libraries, "-o", tmp_path / "classify"]
    subprocess.run(command, check=True)
    toy_input().tofile(tmp_path / "x.bin")
    command = [tmp_path / "classify", tmp_path / "x.bin", tmp_path / "y.bin", "1"]
    subprocess.run(command, env=driver_environment(driver, kernels), check=True, capture_output=True)
    assert (tmp_path / "y.bin").read_bytes() == reference(toy_input()).tobytes()


def test_binaries_for_boards(tmp_path: Path) -> None:
    """The binaries for a Jetson are for another processor, need a newer glibc than JetPack 4's, or link with CUDA."""
    board = toy_gpu_bundle(tmp_path, BOARD)
    for path in (board.library, board.runner):
        content = path.read_bytes()
        assert content[18] == 183  # EM_AARCH64
        versions = {int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)\0", content)}
        assert versions and max(versions) <= 17
        needed = set(re.findall(rb"\0(lib\w+\.so(?:\.\d+)*)(?=\0)", content))
        assert not any(b"cudart" in name or b"tvm" in name for name in needed) and b"libc.so.6" in needed
    assert os.access(board.runner, os.X_OK)
    assert CODE.cubin in board.library.read_bytes() and CODE.ptx.encode() + b"\0" in board.runner.read_bytes()
