"""The functions of model.so for TVM, called by TVM in this process: whatever a caller passes, they answer with a number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.codegen.linker import RUNTIME_SOURCES, api_symbols, link_probe_library, tvm_symbols
from tests.runtime.toy_network import HIDDEN, INPUTS, reference, toy_input

ARGUMENT, KERNEL = -1, -4  # BNN_ERROR_ARGUMENT and BNN_ERROR_KERNEL, negated


@pytest.fixture
def library(host_bundle: Bundle) -> Any:
    return tvm.runtime.load_module(str(host_bundle.library))


def tensor(array: np.ndarray) -> Any:
    return tvm.runtime.tensor(array)


def text_of(function: Any, *arguments: Any, room: int = 1 << 20) -> Any:
    buffer = tvm.runtime.empty((room,), "uint8")
    length = function(*arguments, buffer)
    assert 0 < length <= room
    return json.loads(buffer.numpy()[:length].tobytes())


def test_runs_equal_numpy(library: Any) -> None:
    """TVM gets other results than the C interface gives, or batches in another order."""
    for threads in (1, 3):
        handle = library["bnn_create"](threads)
        assert handle > 0
        for rows in (2, 10):
            output = tvm.runtime.empty((rows, HIDDEN), "float32")
            array = toy_input(rows)
            assert library["bnn_run"](handle, tensor(array), output) == 0
            np.testing.assert_array_equal(output.numpy(), reference(array))
        assert library["bnn_destroy"](handle) == 0


def test_descriptions_are_those_of_the_bundle(library: Any, host_bundle: Bundle) -> None:
    """A caller cannot tell that it has another network, or reads a description that is cut off."""
    description = text_of(library["bnn_describe"])
    assert description == {
        "inputs": [{"dtype": "float32", "shape": [2, INPUTS]}],
        "outputs": [{"dtype": "float32", "shape": [2, HIDDEN]}],
        "steps": len(host_bundle.steps),
    }
    small = tensor(np.full(8, 7, np.uint8))
    assert library["bnn_describe"](small) > 8
    assert (small.numpy() == 7).all()


def test_profile_is_the_runners(library: Any, host_bundle: Bundle, tmp_path: Path) -> None:
    """The profile over RPC and the runner's have other fields, so that one of them cannot be read."""
    handle = library["bnn_create"](2)
    arrays = (tensor(toy_input()), tvm.runtime.empty((2, HIDDEN), "float32"))
    ours = text_of(library["bnn_profile"], handle, 2, *arrays, 5, 1)
    np.save(tmp_path / "x.npy", toy_input())
    options = ["--input", "x.npy", "--profile", "p.json", "--repeat", "5", "--warmup", "1", "--threads", "2"]
    subprocess.run([host_bundle.runner, *options], cwd=tmp_path, check=True, capture_output=True)
    runners = json.loads((tmp_path / "p.json").read_text())
    assert list(ours) == list(runners)
    for name in ("format", "format_version", "threads", "warmup", "repeat", "steps", "kernel_set", "emulated"):
        assert ours[name] == runners[name], name
    assert ours["system_before"]["cpu_flags"] == runners["system_before"]["cpu_flags"]
    assert np.shape(ours["step_seconds"]) == np.shape(runners["step_seconds"])
    library["bnn_destroy"](handle)


def test_failing_kernel_gives_its_step(library: Any) -> None:
    """A kernel's failure cannot be told from success, or from another failure."""
    handle = library["bnn_create"](1)
    array = toy_input(6)
    array[4, 0] = 666
    arrays = (tensor(array), tvm.runtime.empty((6, HIDDEN), "float32"))
    assert library["bnn_run"](handle, *arrays) == KERNEL
    assert library["bnn_failed_step"](handle) == 0
    library["bnn_destroy"](handle)


def test_wrong_arguments_are_refused(library: Any) -> None:
    """A wrong call reads or writes memory that is not its own."""
    handle = library["bnn_create"](1)
    good, result = tensor(toy_input()), tvm.runtime.empty((2, HIDDEN), "float32")
    text = tvm.runtime.empty((1 << 20,), "uint8")
    run, profile = library["bnn_run"], library["bnn_profile"]
    for arguments in (
        (),
        (handle, good),
        (handle, good, result, 1),
        (handle, result, good),
        (handle, good, tvm.runtime.empty((4, HIDDEN), "float32")),
        (handle, tensor(toy_input()[:1]), result),
        (handle, tvm.runtime.empty((0, INPUTS), "float32"), tvm.runtime.empty((0, HIDDEN), "float32")),
        (handle, 1, result),
        (handle, good, "text"),
        (0, good, result),
        ("handle", good, result),
        (good, good, result),
    ):
        assert run(*arguments) == ARGUMENT, arguments
    for arguments in (
        (handle, 1, good, result, 0, 0, text),
        (handle, 1, good, result, 1_000_001, 0, text),
        (handle, 1, good, result, 1, -1, text),
        (handle, 1, good, result, 1, 0, "text"),
        (handle, 1, result, good, 1, 0, text),
        (handle, 1, good, result, 1.5, 0, text),
        (0, 1, good, result, 1, 0, text),
        (handle, 1, good, result, 1, 0),
    ):
        assert profile(*arguments) == ARGUMENT, arguments
    for threads in (0, -1, 257, 2**32 + 1, "1"):
        assert library["bnn_create"](threads) == ARGUMENT, threads
    assert library["bnn_describe"](1) == library["bnn_system_state"]() == library["bnn_create"]() == ARGUMENT
    assert library["bnn_device_error"]() == ARGUMENT and library["bnn_device_error"](good) == 0
    assert library["bnn_destroy"](0) == 0 and library["bnn_failed_step"](0) == -1
    assert run(handle, good, result) == 0
    library["bnn_destroy"](handle)


def test_library_loads_without_tvm(host_bundle: Bundle) -> None:
    """The functions for TVM make model.so need TVM, so it loads on no device without it."""
    code = f"import ctypes; ctypes.CDLL({str(host_bundle.library)!r}, mode=2); print('loaded')"  # RTLD_NOW
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert result.stdout == "loaded\n", result.stderr
    assert b"libtvm" not in host_bundle.library.read_bytes()


def test_nothing_else_is_exported(host_bundle: Bundle) -> None:
    """Names of the runtime meet those of other libraries in one process."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", host_bundle.library], capture_output=True, text=True, check=True
    )
    assert {line.split()[-1] for line in listing.stdout.splitlines()} == {*api_symbols(), *tvm_symbols()}
    source = "".join((RUNTIME_SOURCES / name).read_text() for name in ("tvm/functions.c", "tvm/system.c"))
    assert len(tvm_symbols()) == source.count("\nTVM_FUNCTION(") == 9


def test_probe_library_tells_the_runners_state(host_bundle: Bundle, tmp_path: Path) -> None:
    """The state of a board without a bundle is another one than with it."""
    probe = tvm.runtime.load_module(str(link_probe_library(tmp_path, "x86_64")))
    ours = text_of(probe["bnn_system_state"])
    runners = json.loads(subprocess.run([host_bundle.runner, "--system"], capture_output=True, check=True).stdout)
    assert list(ours) == list(runners)
    for name in ("host", "machine", "kernel", "cpu_flags", "memory_total_bytes", "glibc"):
        assert ours[name] == runners[name], name
