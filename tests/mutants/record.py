"""Which tests run which lines of the compiler, and for how long: a pytest plug-in that writes it into a folder, and its reader.

``coverage`` notes every line under the name of the test that ran it. What a fixture shared by several tests ran counts for all
of them; that is noted under the fixture's name. Lines that run when a module is imported count for no test.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutants.common import MUTATED, ROOT, settle_examples, sources_digest

# The folder of the record, for the process that makes it.
FOLDER_VARIABLE = "MUTANTS_RECORD"
FIXTURE = "fixture "


class Recorder:
    """The plug-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tests: dict[str, dict[str, Any]] = {}
        self.fixtures: dict[str, float] = {}
        self.context = [""]
        self.coverage = coverage.Coverage(
            data_file=str(folder / "lines"),
            include=[str(ROOT / name / "*") for name in MUTATED],
            config_file=False,
        )
        self.coverage.start()

    def _enter(self, context: str) -> None:
        self.context.append(context)
        self.coverage.switch_context(context)

    def _leave(self) -> None:
        self.context.pop()
        self.coverage.switch_context(self.context[-1])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        definitions = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
        shared = [fixture_name(found) for each in definitions for found in each if found.scope != "function"]
        emulated = item.get_closest_marker("qemu") is not None
        self.tests[item.nodeid] = {"seconds": 0.0, "passed": True, "fixtures": shared, "emulated": emulated}
        self._enter(item.nodeid)
        try:
            return (yield)
        finally:
            self._leave()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        name = fixture_name(fixturedef)
        started = time.monotonic()
        self._enter(name)
        try:
            return (yield)
        finally:
            self._leave()
            self.fixtures[name] = self.fixtures.get(name, 0.0) + time.monotonic() - started

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests[report.nodeid]
        test["seconds"] += report.duration
        test["passed"] &= report.passed

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        content = {"sources": sources_digest(), "tests": self.tests, "fixtures": self.fixtures}
        (self.folder / "tests.json").write_text(json.dumps(content, indent=1))


def fixture_name(definition: Any) -> str:
    """The name under which the lines of a shared fixture are noted."""
    return f"{FIXTURE}{definition.baseid}::{definition.argname}"


def pytest_configure(config: pytest.Config) -> None:
    """Starts to record, before any module of the compiler is imported by a test. Examples are the same ones in every run."""
    settle_examples()
    if folder := os.environ.get(FOLDER_VARIABLE):
        config.pluginmanager.register(Recorder(Path(folder)))
