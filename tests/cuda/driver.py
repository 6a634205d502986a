"""Builds the fake driver (fake_driver.c) and libraries of kernels for it, and runs programs that find both."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ZIG_TARGETS = {"x86_64": "x86_64-linux-gnu.2.17", "arm64": "aarch64-linux-gnu.2.17"}
OPTIONS = ("-std=c11", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared")


def build_driver(folder: Path, architecture: str = "x86_64", options: Sequence[str] = ()) -> Path:
    """Compile the fake driver into a folder for ``LD_LIBRARY_PATH``.

    Args:
        folder: existing; it gets ``libcuda.so.1``.
        architecture: "x86_64" or "arm64".
        options: such as ``-DCUDA_10_2``.
    """
    path = folder / "libcuda.so.1"
    soname = "-Wl,-soname,libcuda.so.1"
    _compile(architecture, *OPTIONS, *options, soname, "-o", path, HERE / "fake_driver.c", "-ldl", "-lpthread")
    return path


def build_kernels(folder: Path, sources: Sequence[Path], architecture: str = "x86_64") -> Path:
    """A library for ``CUDA_FAKE_KERNELS`` from C sources and object files, for glibc; fake_driver.c says what it must export."""
    path = folder / f"kernels-{architecture}.so"
    _compile(architecture, *OPTIONS, "-o", path, *sources, "-lm")
    return path


def _compile(architecture: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", ZIG_TARGETS[architecture], *map(str, arguments)]
    # -s and another folder than that of .venv, as when bundles are linked: zig would build its C library once more.
    result = subprocess.run([*command, "-s"], cwd=tempfile.gettempdir(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def driver_environment(driver: Path | None, kernels: Path | None, **settings: object) -> dict[str, str]:
    """Variables for a process.

    Args:
        driver: the fake driver; None: there is none.
        kernels: what it runs.
        settings: of fake_driver.c, without ``CUDA_FAKE_`` and in lower case: ``version=11040``.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "LD_"))}
    if driver is not None:
        environment["LD_LIBRARY_PATH"] = str(driver.parent)
    if kernels is not None:
        environment["CUDA_FAKE_KERNELS"] = str(kernels)
    return environment | {f"CUDA_FAKE_{name.upper()}": str(value) for name, value in settings.items()}


def run_python(script: str, *arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own, since the dynamic loader reads ``LD_LIBRARY_PATH`` only when a process starts."""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
