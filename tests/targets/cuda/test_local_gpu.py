"""This machine's GPU, as NVIDIA's driver describes it: with a driver for tests (fake_driver.c), and with none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cuda.driver import build_driver, driver_environment, run_python

SCRIPT = """
import json
from dataclasses import asdict
from bnn_deploy.doctor.this_machine import check_gpu
from bnn_deploy.errors import TargetError
from bnn_deploy.targets.cuda.local_gpu import local_gpu
from bnn_deploy.targets.registry import get_target
try:
    found = [asdict(local_gpu()), get_target("cuda").name]
except TargetError as error:
    found = [str(error), None]
print(json.dumps([*found, *(check.to_dict() for check in check_gpu())]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver for tests."""
    return build_driver(tmp_path_factory.mktemp("driver"))


def told(driver: Path | None, **settings: object) -> tuple[object, object, dict[str, str]]:
    """``local_gpu`` or its error, the name of the target "cuda", and doctor's row for the GPU."""
    done = run_python(SCRIPT, environment=driver_environment(driver, None, **settings))
    assert done.returncode == 0, done.stderr
    gpu, target, compiler, row = json.loads(done.stdout)
    assert compiler["name"] == "GPU compiler" and compiler["found"].startswith("NVRTC 12.")
    return gpu, target, row


def test_gpu_of_this_machine(driver: Path) -> None:
    """Breaks if architecture, memory or the driver's CUDA are read wrongly, or --target cuda takes another architecture."""
    gpu, target, row = told(driver, capability=90, version=13000, memory=1 << 35)
    assert isinstance(gpu, dict) and isinstance(gpu["name"], str)
    assert (gpu["sm"], gpu["cuda"], gpu["memory_bytes"]) == (90, [13, 0], 1 << 35)
    assert target == "cuda-sm_90"
    assert row["found"] == f"{gpu['name']}, sm_90, CUDA 13.0, 34.4 GB"
    gpu, target, _ = told(driver, capability=86, version=12020)
    assert isinstance(gpu, dict) and gpu["cuda"] == [12, 2] and target == "cuda-sm_86"


def test_driver_without_gpu(driver: Path) -> None:
    """Breaks if a machine whose GPU was taken out gets a traceback, or doctor fails there."""
    reason, target, row = told(driver, devices=0)
    assert target is None and isinstance(reason, str) and "gives no GPU (cu" in reason and "error 10" in reason
    assert row["status"] == "ok" and row["found"] == f"none: {reason}"


def test_no_driver() -> None:
    """Breaks if doctor fails on machines without NVIDIA's driver, as those that run these tests mostly are."""
    reason, target, row = told(None)
    if target is not None:
        pytest.skip("this machine has NVIDIA's driver")
    assert "libcuda.so.1, was not found" in str(reason) and row["found"].startswith("none: NVIDIA's driver")
