"""The tiny model that many tests use: exported once and compiled once for this machine, through the command line."""

from __future__ import annotations

import os
import shutil
import tempfile

# Before torch is imported, and inherited by the commands that tests start: several threads in each of several processes on
# the same cores spend most of their time waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

Invoke = Callable[..., Result]


def pytest_configure(config: pytest.Config) -> None:
    """One cache of compiled objects for all test processes, none of it the user's; the first process makes it."""
    if "BNN_DEPLOY_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="bnn-deploy-test-cache-")
        os.environ["BNN_DEPLOY_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Run the command line in this process: ``invoke("export", "bimlp_tiny", ...)``."""

    def run(*arguments: object) -> Result:
        from bnn_deploy.cli import command_line

        return CliRunner().invoke(command_line, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke) -> Path:
    """bimlp_tiny with seeded, calibrated weights and a dynamic batch."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    result = invoke("export", "bimlp_tiny", "-o", path)
    assert result.exit_code == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke, tiny_onnx: Path) -> Path:
    """``tiny_onnx`` compiled for this machine with batch 2."""
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    result = invoke("compile", tiny_onnx, "--target", "host", "--batch", 2, "-o", path)
    assert result.exit_code == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def arm_compilation(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke, tiny_onnx: Path) -> tuple[Path, Result]:
    """A folder with ``bundle``, which is ``tiny_onnx`` for the Raspberry Pi 4 with batch 3, and ``ir``; what was printed."""
    folder = tmp_path_factory.mktemp("arm")
    options = ("--target", "rpi4", "--batch", 3, "--dump-ir", folder / "ir", "--format", "json")
    result = invoke("compile", tiny_onnx, "-o", folder / "bundle", *options)
    assert result.exit_code == 0, result.stderr
    return folder, result
