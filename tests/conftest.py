"""The tiny model that many tests use: exported once and compiled once for this machine, through the command line."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import signal
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
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts its background jobs so, and the commands that tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "BNN_DEPLOY_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="bnn-deploy-test-cache-")
        os.environ["BNN_DEPLOY_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


# What takes longest comes first, so that no test process is left alone with it at the end.
LONG = {
    "test_zoo.py",
    "test_kernels.py",
    "test_guides.py",
    "test_documentation.py",
    "test_depthwise.py",
    "test_fleet.py",
}


@pytest.hookimpl(specname="pytest_collection_modifyitems")
def pytest_long_files_first(items: list[pytest.Item]) -> None:
    """The long files first, all others in their order; ``make test`` keeps it by ``--no-loadscope-reorder``."""
    items.sort(key=lambda item: item.path.name not in LONG)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The path at which ``make`` made something for whichever test process asked first; the others wait for it."""
    base = factory.getbasetemp()
    # pytest-xdist gives each process a folder within that of the run.
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = folder / name
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU, its tests are deselected: a skip would count among what was tried."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and _missing_gpu():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says so even where test processes of their own collected the tests."""
    if reason := _missing_gpu():
        terminalreporter.write_line(f"Tests marked gpu were deselected, not passed: {reason}. See make test-gpu.")


@functools.cache
def _missing_gpu() -> str:
    """Why there is no GPU here; "" if there is one."""
    from bnn_deploy.errors import TargetError
    from bnn_deploy.targets.cuda.local_gpu import local_gpu

    try:
        local_gpu()
    except TargetError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Run the command line in this process: ``invoke("export", "bimlp_tiny", ...)``."""

    def run(*arguments: object) -> Result:
        from bnn_deploy.cli import command_line

        return CliRunner().invoke(command_line, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke) -> Callable[[str, str | None], Path]:
    """The ONNX file of a tiny model of the zoo (name, variant), with seeded weights and a dynamic batch."""

    def export(name: str, variant: str | None = None) -> Path:
        def make(path: Path) -> None:
            options = ("--variant", variant) if variant else ()
            result = invoke("export", name, "--seed", 0, *options, "-o", path)
            assert result.exit_code == 0, result.stderr

        return made_once(tmp_path_factory, f"{name}_{variant}.onnx", make)

    return export


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """bimlp_tiny with seeded, calibrated weights and a dynamic batch: the same as with export's defaults spelt out."""

    def make(path: Path) -> None:
        shutil.copyfile(tiny_model("bimlp_tiny", "paper"), path)

    return made_once(tmp_path_factory, "tiny.onnx", make)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke, tiny_onnx: Path) -> Path:
    """``tiny_onnx`` compiled for this machine with batch 2."""

    def make(path: Path) -> None:
        result = invoke("compile", tiny_onnx, "--target", "host", "--batch", 2, "-o", path)
        assert result.exit_code == 0, result.stderr

    return made_once(tmp_path_factory, "tiny", make)


@pytest.fixture(scope="session")
def arm_compilation(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke, tiny_onnx: Path) -> tuple[Path, Result]:
    """A folder with ``bundle``, which is ``tiny_onnx`` for the Raspberry Pi 4 with batch 3, and ``ir``; what was printed."""
    folder = tmp_path_factory.mktemp("arm")
    options = ("--target", "rpi4", "--batch", 3, "--dump-ir", folder / "ir", "--format", "json")
    result = invoke("compile", tiny_onnx, "-o", folder / "bundle", *options)
    assert result.exit_code == 0, result.stderr
    return folder, result
