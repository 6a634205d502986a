"""Bundles in this process: the bits are right for any threads, alignment, process and neighbour; bad input is named."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bnn_deploy
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.codegen.linker import api_symbols
from bnn_deploy.errors import BnnDeployError, BundleError, InputError
from bnn_deploy.runtime import processor
from bnn_deploy.runtime.loader import Model
from tests.runtime.toy_network import AWKWARD_LAYER, BATCH, HIDDEN, INPUTS, constants, reference, toy_input


@settings(max_examples=12, deadline=None)
@given(batches=st.integers(1, 5), threads=st.integers(1, 5), seed=st.integers(0, 100))
def test_equals_numpy(host_bundle: Bundle, batches: int, threads: int, seed: int) -> None:
    """Kernels get the wrong memory, or threads miss or repeat a task."""
    array = toy_input(batches * BATCH, seed)
    np.testing.assert_array_equal(Model(host_bundle, threads=threads)(array), reference(array))


def test_load_is_the_public_way_in(host_bundle: Bundle) -> None:
    """``bnn_deploy.load`` does not accept a path as text."""
    np.testing.assert_array_equal(bnn_deploy.load(str(host_bundle.path))(toy_input()), reference(toy_input()))


def test_many_parallel_launches(host_bundle: Bundle) -> None:
    """A worker misses a wake-up, and a run hangs or returns before the work is done."""
    model = Model(host_bundle, threads=3)
    array = toy_input(600)
    np.testing.assert_array_equal(model(array), reference(array))


def test_arrays_of_any_alignment_and_order(host_bundle: Bundle) -> None:
    """Vector loads of a kernel fault on a caller's unaligned array, or strides are ignored."""
    array = toy_input()
    unaligned = np.frombuffer(b"\0" * 4 + array.tobytes(), np.float32, offset=4).reshape(array.shape)
    fortran, big_endian = np.asfortranarray(array), array.astype(">f4")
    wide = np.repeat(array, 2, axis=1)[:, ::2]
    for given_array in (unaligned, fortran, big_endian, wide):
        np.testing.assert_array_equal(Model(host_bundle)(given_array), reference(array))


def test_unaligned_output_of_the_c_interface(host_bundle: Bundle) -> None:
    """Results for a caller's unaligned buffer stay in the model's own memory."""
    library = ctypes.CDLL(str(host_bundle.library))
    handle = ctypes.c_void_p()
    assert library.bnn_create(1, ctypes.byref(handle)) == 0
    array = toy_input()
    result = np.zeros(BATCH * HIDDEN * 4 + 8, np.uint8)
    inputs, outputs = (ctypes.c_void_p * 1)(array.ctypes.data), (ctypes.c_void_p * 1)(result.ctypes.data + 4)
    assert library.bnn_run(handle, inputs, outputs) == 0
    library.bnn_destroy(handle)
    assert result[4:-4].tobytes() == reference(array).tobytes()
    assert not result[:4].any() and not result[-4:].any()


def test_two_bundles_in_one_process(host_bundle: Bundle, other_bundle: Bundle) -> None:
    """Symbols of one library are bound to those of another: the second network computes with the first one's weights."""
    first, second = Model(host_bundle, threads=2), Model(other_bundle, threads=2)
    array = toy_input()
    assert not np.array_equal(constants(0)[1], constants(7)[1])
    for _ in range(2):
        np.testing.assert_array_equal(first(array), reference(array))
        np.testing.assert_array_equal(second(array), reference(array, seed=7))


def test_a_bundle_compiled_again_at_the_same_place(host_bundle: Bundle, other_bundle: Bundle, tmp_path: Path) -> None:
    """The dynamic loader answers with the library that stood at this path before."""
    place, array = tmp_path / "bundle", toy_input()
    shutil.copytree(host_bundle.path, place)
    before = Model(place)
    np.testing.assert_array_equal(before(array), reference(array))
    place.rename(tmp_path / "old")
    shutil.copytree(other_bundle.path, place)
    np.testing.assert_array_equal(Model(place)(array), reference(array, seed=7))
    np.testing.assert_array_equal(before(array), reference(array))


def test_models_and_python_threads(host_bundle: Bundle) -> None:
    """Two threads that share a model, or run two models at once, mix up their memory."""
    shared, failures = Model(host_bundle, threads=2), []

    def use(model: Model, seed: int) -> None:
        array = toy_input(40, seed)
        if not np.array_equal(model(array), reference(array)):
            failures.append(seed)

    models = [shared, shared, Model(host_bundle, threads=2)]
    workers = [threading.Thread(target=use, args=(model, seed)) for seed, model in enumerate(models)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


FORK = """
import os, sys, numpy as np
from bnn_deploy.runtime.loader import Model
model = Model(sys.argv[1], threads=2)
array = np.ones((2, 48), np.float32)
expected = model(array)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(model(array), expected) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_has_its_own_threads(host_bundle: Bundle) -> None:
    """After fork() the child waits for ever for workers that only the parent has."""
    root = Path(bnn_deploy.__file__).parent.parent
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(host_bundle.path)]
    assert subprocess.run(command, cwd=root, timeout=60).returncode == 0


def count_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_thread_count_can_change_and_is_real(host_bundle: Bundle) -> None:
    """One thread starts workers, or a changed count is not followed."""
    library = ctypes.CDLL(str(host_bundle.library))
    handle = ctypes.c_void_p()
    assert library.bnn_create(1, ctypes.byref(handle)) == 0
    array, result = toy_input(), np.zeros((BATCH, HIDDEN), np.float32)
    inputs, outputs = (ctypes.c_void_p * 1)(array.ctypes.data), (ctypes.c_void_p * 1)(result.ctypes.data)
    gc.collect()  # joins the workers of earlier tests' models
    started = count_threads()
    for threads in (1, 3, 2, 1):
        assert library.bnn_set_threads(handle, threads) == 0
        assert library.bnn_run(handle, inputs, outputs) == 0
        deadline = time.monotonic() + 5  # a joined thread stays in /proc for a moment
        while count_threads() != started + threads - 1:
            assert time.monotonic() < deadline, f"{count_threads() - started} workers for {threads} threads"
        np.testing.assert_array_equal(result, reference(array))
    assert library.bnn_set_threads(handle, 0) == 1 and library.bnn_set_threads(handle, 257) == 1
    library.bnn_destroy(handle)


def test_only_the_interface_is_visible(host_bundle: Bundle) -> None:
    """Kernels and runtime are exported, and could collide with other libraries."""
    library = ctypes.CDLL(str(host_bundle.library))
    assert len(api_symbols()) == 17 and all(hasattr(library, name) for name in api_symbols())
    for name in (
        "toy_matmul",
        "bnn_network",
        "bnn_weights",
        "bnn_chosen_kernels",
        "bnn_pool_start",
        "__TVMBackendParallelLaunch",
    ):
        assert not hasattr(library, name)


def test_kernel_failures_name_the_layer(host_bundle: Bundle) -> None:
    """A failed kernel, also on a worker thread, passes for a result."""
    array = toy_input()
    array[0, 0] = 666
    with pytest.raises(BundleError, match=r"toy_check of layer stem\.check"):
        Model(host_bundle)(array)
    scale, weight, bias = constants()
    array = np.zeros((BATCH, INPUTS), np.float32)
    column = int(np.flatnonzero(scale * weight[0])[0])
    array[0, column] = (1000000.0 - bias[0]) / (scale[column] * weight[0, column])
    assert reference(array)[0, 0] == 1000000
    for threads in (1, 3):
        with pytest.raises(BundleError) as failure:
            Model(host_bundle, threads=threads)(array)
        assert AWKWARD_LAYER in str(failure.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (toy_input().astype(np.float64), "float64, expected float32"),
        (toy_input().astype(np.int32), "int32, expected float32"),
        (np.full((2, 48), "x", object), "object, expected float32"),
        (toy_input(3), r"shape \(3, 48\), expected \(2, 48\)"),
        (toy_input()[:0], r"shape \(0, 48\)"),
        (toy_input()[:, :47], r"shape \(2, 47\)"),
        (toy_input()[None], r"shape \(1, 2, 48\)"),
        (np.float32(1), r"shape \(\)"),
    ],
)
def test_wrong_arrays_are_named(host_bundle: Bundle, array: np.ndarray, message: str) -> None:
    """An array that does not fit is read beyond its end."""
    with pytest.raises(InputError, match=message):
        Model(host_bundle)(array)


def test_wrong_counts_are_named(host_bundle: Bundle) -> None:
    """Thread counts and array counts reach the C interface unchecked."""
    for threads in (0, -1, 257, 1.5, True, "2"):
        with pytest.raises(InputError, match="threads"):
            Model(host_bundle, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes 1 input"):
        Model(host_bundle)(toy_input(), toy_input())


def test_other_processors_are_refused(host_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for another processor is loaded, and the process dies of SIGILL."""
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n")
    monkeypatch.setattr(processor, "CPU_INFORMATION", information)
    assert processor.cpu_flags() == {"fpu", "avx2"}
    with pytest.raises(BundleError, match="toy-host, whose instructions sse2 this processor lacks"):
        Model(host_bundle)
    information.write_text("Features\t: fp asimd\n")
    assert processor.cpu_flags() == {"fp", "asimd"}
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(BundleError, match="this machine is riscv64"):
        Model(host_bundle)


def test_altered_manifest_is_noticed(copied_bundle: Path) -> None:
    """Shapes of an edited manifest make the library write beyond the caller's array."""
    path = copied_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for change in ({"inputs": [{**manifest["inputs"][0], "shape": [4, 24]}]}, {"steps": manifest["steps"][:-1]}):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(BundleError, match=r"are not those of model\.so"):
            Model(copied_bundle)


def test_running_out_of_memory_is_an_error(host_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status of the C interface other than success is taken for success."""
    model = Model(host_bundle)
    with pytest.raises(BnnDeployError, match="in use by another thread"):
        model._check(5)
    library = ctypes.CDLL(str(host_bundle.library))
    assert library.bnn_create(1, None) == 1
    assert library.bnn_run(None, None, None) == 1
