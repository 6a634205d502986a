"""Tests against one mutant, in a child process that has the slow libraries from its parent and the mutant in place of a module."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import hypothesis
import pytest

from tests.mutants.common import ROOT, settle_examples

# Imported once; nothing of bnn_deploy, which each child imports anew.
PRELOADED = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "scipy", "torch", "tvm.relax", "tvm.tirx")

NOT_IMPORTED = "no test imported the mutant"


@dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        noticed: the test that failed, or how the run ended otherwise; "" if all tests passed.
        late: stopped at the limit.
    """

    noticed: str
    late: bool
    seconds: float


class MutantFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module, and gives another source for it."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source
        self.used = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        folder = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname,
            self.path,
            loader=self,
            submodule_search_locations=folder,  # type: ignore[arg-type]
        )

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, str(self.path), "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        self.used = True
        # What reads a function's source, as TVMScript does, reads the mutant's.
        linecache.cache[str(self.path)] = (len(self.source), None, self.source.splitlines(True), str(self.path))
        super().exec_module(module)


class Chosen:
    """A pytest plug-in: runs the named tests in their order, and keeps what failed first."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.order = {name: position for position, name in enumerate(tests)}
        self.failed = ""
        self.passed = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or f"collection of {report.nodeid}"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid
        self.passed += report.passed and report.when == "call"


def preload() -> None:
    """Imports what every child needs."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert not any(name.partition(".")[0] == "bnn_deploy" for name in sys.modules)


def module_name(path: str) -> str:
    """The name under which a file of the repository is imported."""
    parts = Path(path).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "bnn_deploy" else ("bnn_deploy", *parts))


def run(path: str, source: str, tests: Sequence[str], limit: float, folder: Path) -> Run:
    """Run ``tests`` with ``source`` in place of the file at ``path``; ``folder`` gets what they print."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _child(path, source, tests, limit, folder, answer)
        finally:
            os._exit(70)
    status = _wait(child, started + limit)
    seconds = time.monotonic() - started
    if status is None:
        return Run(f"more than {limit:.0f} s", True, seconds)
    if not answer.exists():
        return Run(f"the process ended with {os.waitstatus_to_exitcode(status)}", False, seconds)
    content = json.loads(answer.read_text())
    if content["failed"]:
        return Run(content["failed"], False, seconds)
    if content["code"] != 0 or content["passed"] != len(tests):
        return Run(
            f"pytest ended with {content['code']} and {content['passed']} of {len(tests)} passed", False, seconds
        )
    return Run("", False, seconds)


def _wait(child: int, until: float) -> int | None:
    """The child's status; None if it was killed at the time ``until``, with all that it started."""
    while True:
        finished, status = os.waitpid(child, os.WNOHANG)
        late = time.monotonic() > until
        if finished or late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            if not finished:
                os.waitpid(child, 0)
            return status if finished else None
        time.sleep(0.02)


def _child(path: str, source: str, tests: Sequence[str], limit: float, folder: Path, answer: Path) -> None:
    os.setsid()
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Says in the output what was under way.
    faulthandler.dump_traceback_later(max(1.0, limit - 1), file=output)
    finder = MutantFinder(module_name(path), ROOT / path, source)
    sys.meta_path.insert(0, finder)
    settle_examples(phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    chosen = Chosen(tests)
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    # Without the terminal's reports, whose summary asks the compiler for GPUs, and without pytest's own finder of modules, which
    # would come first: bnn_deploy is a plug-in of pytest.
    options = ["-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:xdist"]
    options += [f"--basetemp={folder / 'temporary'}", f"--rootdir={ROOT}"]
    options += ["-o", "addopts=--strict-markers --import-mode=importlib"]
    code = pytest.main([*options, *files], plugins=[chosen])
    if not finder.used and not chosen.failed:
        chosen.failed, code = NOT_IMPORTED, 0
    answer.write_text(json.dumps({"code": int(code), "failed": chosen.failed, "passed": chosen.passed}))
    sys.stdout.flush()
    os._exit(0)
