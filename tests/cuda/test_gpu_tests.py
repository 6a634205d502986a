"""The tests for machines with a GPU, executed on the fake driver: they are known to work before there is a GPU to run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cuda.driver import ROOT, build_driver, build_kernels, driver_environment
from tests.gpu.bank import calls, serial_kernels

SM = 87
TESTS = "tests/gpu/test_kernels.py"


def run_gpu_tests(folder: Path, kernels: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """pytest on tests/gpu in a process that finds the fake driver."""
    environment = driver_environment(build_driver(folder), kernels, capability=SM, **settings)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_banks_run(tmp_path: Path) -> None:
    """The bank's tests crash before the first launch, give kernels wrong buffers, or are deselected beside a GPU."""
    some = calls("packing", SM) + calls("layers", SM)[:1]
    tests = (f"{TESTS}::test_bank[packing]", f"{TESTS}::test_ptx_runs_as_well")
    result = run_gpu_tests(tmp_path, serial_kernels(some, tmp_path), *tests)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout and "deselected" not in result.stdout, result.stdout


def test_what_goes_wrong_is_found(tmp_path: Path) -> None:
    """Kernels pass that write nothing, or an error of the driver is swallowed."""
    lines = ["#include <stdint.h>", '#define API __attribute__((visibility("default")))']
    for call in (calls(group, SM)[0] for group in ("packing", "layers")):
        parameters = f"API int32_t {call.symbol}_parameters = {len(call.function.params)};"
        lines += [f"API int32_t {call.symbol}(void) {{ return 0; }}", parameters]
    source = tmp_path / "nothing.c"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kernels = build_kernels(tmp_path, [source])
    result = run_gpu_tests(tmp_path, kernels, f"{TESTS}::test_ptx_runs_as_well", fail="cuLaunchKernel:2:719")
    assert result.returncode == 1 and "2 failed" in result.stdout, result.stdout + result.stderr
    assert "elements of output 0 differ" in result.stdout, result.stdout
    assert "failed in cuLaunchKernel: " in result.stdout, result.stdout


def test_without_a_gpu_they_are_deselected() -> None:
    """They run into errors where there is no GPU, count as passed or skipped, or processes of pytest-xdist hide them."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", TESTS, "-n", "1"]
    environment = driver_environment(None, None)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 5, result.stdout + result.stderr  # no tests ran
    assert "deselected, not passed" in result.stdout
    assert "passed" not in result.stdout.replace("not passed", "") and "skipped" not in result.stdout
