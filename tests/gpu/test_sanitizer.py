"""A bundle's runner on the GPU of this machine under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.models import Ready

pytestmark = pytest.mark.gpu

WHEEL = "nvidia-cuda-sanitizer-api"
# What each tool says at the end if it found nothing; a tool that could not look into the program does not say it.
CLEAN = {
    "memcheck": r"ERROR SUMMARY: 0 errors",
    "racecheck": r"RACECHECK SUMMARY: 0 hazards displayed \(0 errors, 0 warnings\)",
    "synccheck": r"ERROR SUMMARY: 0 errors",
}


def compute_sanitizer() -> str:
    """The program's path. Without it the test fails: what a skip leaves untested is found nowhere else."""
    if found := shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ["PATH"], "/usr/local/cuda/bin"])):
        return found
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(WHEEL) or ():
            if file.name == "compute-sanitizer" and file.parent.name == "bin":
                return str(file.locate())
    pytest.fail(
        f"compute-sanitizer was found neither in PATH nor in /usr/local/cuda/bin nor as the wheel {WHEEL}; install CUDA's "
        f"toolkit, or the wheel with pip install {WHEEL}."
    )


@pytest.mark.parametrize("tool", CLEAN)
def test_no_complaints(prepare: Callable[[str], Ready], tool: str, tmp_path: Path) -> None:
    """A kernel reads or writes out of bounds, threads race for shared memory, or some of them miss a barrier."""
    ready, result = prepare("bimlp_tiny"), tmp_path / "logits.npy"
    np.save(tmp_path / "images.npy", ready.exported.images)
    runner = (ready.bundle.runner, "--input", tmp_path / "images.npy", "--output", result)
    command = [compute_sanitizer(), "--tool", tool, "--error-exitcode", "86", *runner]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=180)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and re.search(CLEAN[tool], said), said
    np.testing.assert_array_equal(np.load(result), ready.alone)
