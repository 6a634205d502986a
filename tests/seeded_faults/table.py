"""Prints the table of docs/parity.md: ``python -m tests.seeded_faults.table``.

Each fault, the lowest level that fails and the first layer it names, how many of the values of that row differ, and the part of
images for which the whole model still gives the same class.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.seeded_faults.check import Subject, caught
from tests.seeded_faults.faults import FAULTS, Fault


def row(fault: Fault, subject: Subject, folder: Path) -> str:
    """One line."""
    with pytest.MonkeyPatch.context() as patch:
        report = caught(fault, subject, folder, patch)
    failing = [f"{level.level}" for level in report.levels if not level.passed]
    first = report.first_failure
    if first is None or report.model is None:
        return f"| {fault.what} | {fault.network} | none | | | |"
    _, found = first
    model = report.model
    return (
        f"| {fault.what} | {fault.network} | {', '.join(failing)} | {found.layer} | {found.differing:,} of "
        f"{found.compared:,} | {model.agreements} of {model.samples} |"
    )


def main() -> None:
    """Every fault."""
    print("| fault | network | failing levels | first layer named | values that differ there | top-1 agreement |")
    print("|---|---|---|---|---|---|")
    subjects: dict[str, Subject] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, fault in enumerate(FAULTS):
            if fault.network not in subjects:
                subjects[fault.network] = Subject.make(fault.network, Path(scratch) / fault.network)
            print(row(fault, subjects[fault.network], Path(scratch) / str(number)), flush=True)


if __name__ == "__main__":
    main()
