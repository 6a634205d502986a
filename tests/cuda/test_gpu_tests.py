"""The tests for machines with a GPU, executed on the fake driver: they are known to work before there is a GPU to run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.driver import ROOT, build_driver, build_kernels, driver_environment
from tests.gpu.bank import calls, serial_kernels

SM = 87
# The PTX test is not among them: the fake driver takes only text that begins with .version.
BANK = "tests/gpu/test_kernels.py::test_bank[packing]"


def run_gpu_tests(folder: Path, kernels: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """pytest on tests/gpu in a process that finds the fake driver."""
    environment = driver_environment(build_driver(folder), kernels, capability=SM, **settings)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_banks_run(tmp_path: Path) -> None:
    """The bank's tests crash before the first launch, give kernels wrong buffers, or are deselected beside a GPU."""
    result = run_gpu_tests(tmp_path, serial_kernels(calls("packing", SM), tmp_path), BANK)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout and "deselected" not in result.stdout, result.stdout


@pytest.mark.parametrize(
    "fail, message", [("", "elements of output 0 differ"), ("cuLaunchKernel:1:719", "cuLaunchKernel: ")]
)
def test_what_goes_wrong_is_found(tmp_path: Path, fail: str, message: str) -> None:
    """Kernels pass that write nothing, or an error of the driver is swallowed."""
    lines = ["#include <stdint.h>", '#define API __attribute__((visibility("default")))']
    for call in calls("packing", SM):
        lines += [f"API int32_t {call.symbol}(void) {{ return 0; }}", f"API int32_t {call.symbol}_parameters = 1;"]
    source = tmp_path / "nothing.c"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run_gpu_tests(tmp_path, build_kernels(tmp_path, [source]), BANK, **({"fail": fail} if fail else {}))
    assert result.returncode == 1, result.stdout + result.stderr
    assert message in result.stdout, result.stdout


def test_without_a_gpu_they_are_deselected() -> None:
    """They run into errors where there is no GPU, count as passed or skipped, or processes of pytest-xdist hide them."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/gpu", "-n", "1"]
    environment = driver_environment(None, None)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 5, result.stdout + result.stderr  # no tests ran
    assert "deselected, not passed" in result.stdout
    assert "passed" not in result.stdout.replace("not passed", "") and "skipped" not in result.stdout
