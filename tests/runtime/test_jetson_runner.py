"""The runner of a Jetson's bundle as it runs on the board: an arm64 program, in a C library of arm64 that finds the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cuda.driver import build_driver, build_kernels
from tests.cuda.toy_gpu_network import BOARD, KERNELS, toy_gpu_bundle
from tests.runtime.toy_network import reference, toy_input

# Debian's arm64 C library, which .ci/boards puts beside the emulated boards' Python.
ROOT = Path(__file__).parents[2] / ".boards" / "python"


@pytest.mark.board
@pytest.mark.qemu
def test_runner_on_arm64(tmp_path: Path) -> None:
    """A bundle for a Jetson's GPU, which nothing here executes otherwise, does not start there, or computes something else."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None or not (ROOT / "lib" / "ld-linux-aarch64.so.1").exists():
        sentence = "qemu-aarch64 (Debian package qemu-user) or .boards (see .ci/boards) is missing"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    bundle = toy_gpu_bundle(tmp_path, BOARD)
    driver, kernels = build_driver(tmp_path, "arm64"), build_kernels(tmp_path, [KERNELS], "arm64")
    array = toy_input()
    np.save(tmp_path / "x.npy", array)
    settings = {"LD_LIBRARY_PATH": driver.parent, "CUDA_FAKE_KERNELS": kernels}
    command: list[object] = [
        emulator,
        "-L",
        ROOT,
        *(word for item in settings.items() for word in ("-E", "=".join(map(str, item)))),
    ]
    command += [bundle.runner, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), reference(array))
