"""The files that `profile` writes beside what it prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def test_command_writes_all(tiny_bundle: Path, invoke: Invoke, tmp_path: Path) -> None:
    """Breaks if an output is missing, an old one is not replaced, or something else is left behind."""
    names = {"--report": "a.html", "--png": "a.png", "--trace": "a.trace.json", "--csv": "a.csv"}
    (tmp_path / "a.html").write_text("old")
    options = [word for option, name in names.items() for word in (option, tmp_path / name)]
    result = invoke("profile", tiny_bundle, "--repeat", 6, *options, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(names.values())
    printed = json.loads(result.stdout)["boards"][0]["kernels"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(), newline="")))
    assert [float(row["us_median"]) for row in rows] == [kernel["us"]["median"] for kernel in printed]
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--report", "missing/a.html"), "does not exist"),
        (("--png", "."), "is a folder"),
        (("--csv", "a", "--trace", "./a"), "asked for twice"),
        (("--csv", "/dev/full"), "no ordinary file"),
    ],
)
def test_bad_outputs(
    arguments: tuple[str, ...],
    said: str,
    tiny_bundle: Path,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks if a bad output is found out only after the measurement, without a sentence, or something is left behind."""
    monkeypatch.chdir(tmp_path)
    result = invoke("profile", tiny_bundle, "--repeat", 6, *arguments)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == "" and list(tmp_path.iterdir()) == []
