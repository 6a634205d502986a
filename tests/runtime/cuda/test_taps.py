"""Runs with taps of bundles for GPUs, on the fake driver: copies lie between the launches, and nothing is left on the GPU."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.bundle.bundle import Bundle
from tests.cuda.driver import driver_environment, run_python
from tests.cuda.toy_gpu_network import toy_gpu_taps
from tests.runtime.cuda.runs import NOTHING_LEFT
from tests.runtime.toy_network import toy_input
from tests.runtime.toy_taps import toy_bytes, toy_forced, toy_values


def run_runner(
    bundle: Bundle, folder: Path, environment: dict[str, str], force: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Three batches with taps, and values of ``toy_forced`` for those that force."""
    np.save(folder / "x.npy", toy_input(6))
    np.save(folder / "t.npy", toy_gpu_taps(force))
    np.save(folder / "f.npy", toy_bytes(toy_forced(6)))
    options = ["--input", "x.npy", "--output", "y.npy", "--taps", "t.npy", "--observed", "o.npy", "--forced", "f.npy"]
    command = [str(bundle.runner), *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("force", [(), ("scaled",), ("logits",), ("scaled", "logits")])
def test_values_are_those_of_numpy(
    bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path, force: tuple[str, ...]
) -> None:
    """A value is copied before its kernel has run or after the next one, or a forced one does not reach its readers."""
    log = tmp_path / "log"
    result = run_runner(bundle, tmp_path, driver_environment(driver, kernels, log=log), force)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    other = toy_forced(6)
    values, expected = toy_values(toy_input(6), {name: other[name] for name in force})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), toy_bytes(values))
    lines = Counter(log.read_text().splitlines())
    # Three launches of the graph that is not used, and three of each batch; its input, output and three values; the weights.
    assert (lines["cuGraphLaunch"], lines["cuLaunchKernel"]) == (0, 3 + 3 * 3)
    assert lines["cuMemcpyDtoHAsync_v2"] == 3 * (1 + 3)
    assert lines["cuMemcpyHtoDAsync_v2"] == 1 + 3 * (1 + len(force))
    # The weights', and one for each batch: nobody waits between steps.
    assert (lines["cuStreamSynchronize"], lines[NOTHING_LEFT]) == (1 + 3, 1)


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("cuMemcpyDtoHAsync_v2:2:700", "cuMemcpyDtoHAsync failed with CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuMemcpyHtoDAsync_v2:3:700", "cuMemcpyHtoDAsync failed with CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuLaunchKernel:5:1", "cuLaunchKernel of gpu_sums failed with CUDA_ERROR_INVALID_VALUE"),
    ],
)
def test_trouble_is_one_sentence(
    bundle: Bundle, driver: Path, kernels: Path, tmp_path: Path, fail: str, said: str
) -> None:
    """A copy or launch that fails between steps goes unseen, or leaves a file."""
    result = run_runner(bundle, tmp_path, driver_environment(driver, kernels, fail=fail), ("scaled",))
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"runner: the GPU cannot be used: {said}[^\n]*\.\n", result.stderr), result.stderr
    assert not (tmp_path / "y.npy").exists() and not (tmp_path / "o.npy").exists()


def test_in_this_process(bundle: Bundle, driver: Path, kernels: Path) -> None:
    """The local device does not tap a GPU, takes taps that are no places there, or its next ordinary run is another one."""
    script = """
import sys
import numpy as np
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import InputError
from tests.cuda.toy_gpu_network import toy_gpu_taps
from tests.runtime.toy_network import reference, toy_input
from tests.runtime.toy_taps import ARENA, OUTPUT, TOTAL_BYTES, WORKSPACE, tap, toy_bytes, toy_forced, toy_values
with get_device("local").open(Bundle.open(sys.argv[1])) as session:
    array, other = toy_input(4), toy_forced(4)
    output, observed = session.run_tapped(array, toy_gpu_taps(["scaled"]), TOTAL_BYTES, toy_bytes(other))
    values, expected = toy_values(array, {"scaled": other["scaled"]})
    assert np.array_equal(output, expected) and np.array_equal(observed, toy_bytes(values))
    assert np.array_equal(session.run(array), reference(array))
    for bad in (
        tap(0, WORKSPACE, 0, 4), tap(0, 0, 0, 4), tap(0, 2, 0, 4), tap(0, ARENA, 700, 8), tap(1, OUTPUT, 0, 324),
        tap(0, ARENA, 0, 4, kernel_set=1),
    ):
        try:
            session.run_tapped(array, np.array([bad], np.int64), bad[6])
        except InputError as error:
            assert "no place of the network" in str(error)
        else:
            raise AssertionError(bad)
"""
    result = run_python(script, bundle.path, environment=driver_environment(driver, kernels))
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
