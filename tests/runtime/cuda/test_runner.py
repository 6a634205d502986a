"""The runner of bundles for GPUs, on a fake driver: same bits, one graph per run, nothing left, one sentence for any trouble."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.codegen.linker import GPU_MODEL_SOURCES, RUNNER_SOURCES, RUNTIME_SOURCES, _write_network
from tests.cuda.driver import build_driver, build_kernels, driver_environment
from tests.cuda.toy_gpu_network import BOARD, CODE, KERNELS, toy_gpu_bundle, toy_gpu_plan, toy_gpu_taps
from tests.runtime.cuda.runs import NOTHING_LEFT, log_of, run_runner
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import toy_bytes, toy_values

ROOT = Path(__file__).parents[3]


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
