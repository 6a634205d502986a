"""Which tests can notice a mutant: those that run its lines, out of what ``record`` wrote."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import coverage

from tests.mutants.common import ROOT
from tests.mutants.mutations import Mutant
from tests.mutants.record import FIXTURE


class Record:
    """The record in a folder."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "tests.json").read_text())
        self._fixtures: dict[str, float] = content["fixtures"]
        self._tests = {name: test for name, test in content["tests"].items() if test["passed"]}
        self._sharing: dict[str, set[str]] = {}
        for name, test in self._tests.items():
            for fixture in test["fixtures"]:
                self._sharing.setdefault(fixture, set()).add(name)
        self._data = coverage.CoverageData(str(folder / "lines"))
        self._data.read()
        self._known: dict[str, dict[int, list[str]]] = {}

    def _lines(self, path: str) -> dict[int, list[str]]:
        if path not in self._known:
            self._known[path] = self._data.contexts_by_lineno(str(ROOT / path))
        return self._known[path]

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that run a line of it: the file of its module first, then the quickest; those under an emulator last."""
        by_line = self._lines(mutant.path)
        found: set[str] = set()
        # What runs at import changes what every function of the file does.
        for line in by_line if mutant.lines is None else mutant.lines:
            for context in by_line.get(line, ()):
                found |= self._sharing.get(context, set()) if context.startswith(FIXTURE) else {context}
        found &= self._tests.keys()
        if not found and mutant.lines is None:
            found = self._near(mutant.path)
        own = mirrored(mutant.path)
        return sorted(found, key=lambda name: (self.emulated(name), _file(name) != own, self.seconds([name])))

    def emulated(self, test: str) -> bool:
        """Whether it runs machine code of another processor."""
        return self._tests[test]["emulated"]

    def _near(self, path: str) -> set[str]:
        """The tests of the nearest folder that mirrors one above ``path``: for a file of constants."""
        for parent in PurePosixPath(path).parents:
            if near := {name for name in self._tests if name.startswith(f"tests/{parent}/")}:
                return near
        return set()

    def wider(self, tests: list[str]) -> list[str]:
        """All other tests in the files of ``tests``, the quickest first: they may share what a test of ``tests`` made."""
        files = {_file(name) for name in tests}
        others = [name for name in self._tests.keys() - set(tests) if _file(name) in files and not self.emulated(name)]
        return sorted(others, key=lambda name: self.seconds([name]))

    def seconds(self, tests: list[str]) -> float:
        """How long they took, with the fixtures that they share."""
        shared = {fixture for name in tests for fixture in self._tests[name]["fixtures"]}
        return sum(self._tests[name]["seconds"] for name in tests) + sum(
            self._fixtures.get(each, 0.0) for each in shared
        )

    def within(self, tests: list[str], limit: float) -> list[str]:
        """As many from the front as fit in ``limit`` seconds; at least one, if there is one."""
        count = 1
        while count < len(tests) and self.seconds(tests[: count + 1]) <= limit:
            count += 1
        return tests[:count]


def mirrored(path: str) -> str:
    """The test file of a module: ``passes/relax/pack.py`` -> ``tests/passes/relax/test_pack.py``."""
    source = PurePosixPath(path)
    return str(PurePosixPath("tests") / source.parent / f"test_{source.name}")


def _file(test: str) -> str:
    return test.partition("::")[0]
