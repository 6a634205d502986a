"""``bnn-deploy validate`` with all of its levels on a real model: verdict, exit code, files, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def test_all_levels(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a right bundle fails a level, its bits differ from the exact evaluation, or a report is not written."""
    files = [tmp_path / f"r{suffix}" for suffix in (".html", ".json", ".md", ".xml")]
    reports = [option for file in files for option in ("--report", file)]
    result = invoke(
        "validate", tiny_onnx, "--bundle", tiny_bundle, "--deterministic-reference", "--all-layers", *reports
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Passed: ")
    report = json.loads(files[1].read_text())
    assert [(level["level"], level["passed"], level["images"]) for level in report["levels"]] == [
        (1, True, 2),
        (2, True, 2),
    ]
    for level in report["levels"]:
        names = [row["layer"] for row in level["rows"]]
        assert len(names) > 50 and names[-1] in result.stdout
        assert sum(row["compared"] for row in level["rows"] if row["kind"] == "bits") > 30_000
        assert all(row["differing"] == 0 for row in level["rows"] if row["kind"] == "bits" or level["level"] == 1)
    # Every bit of the logits, not only of the classes.
    assert report["model"]["bit_identical"] == report["model"]["samples"] == 2
    assert report["model"]["max_abs_error"] == 0.0
    assert all(file.stat().st_size > 100 for file in files)


def test_golden_alone(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a golden file is not enough to compare layers and logits, or the missing level goes unmentioned."""
    golden = tmp_path / "g.npz"
    assert invoke("golden", tiny_onnx, "-o", golden).exit_code == 0
    result = invoke("validate", "--bundle", tiny_bundle, "--golden", golden, "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    (level,) = report["levels"]
    assert level["level"] == 2 and sum(row["kind"] == "bits" for row in level["rows"]) >= 28
    assert report["model"]["agreements"] == 2 and "Level 1 was left out" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --bundle B"),
        (["--golden", "g.npz", "--reference", "torch", "--bundle", "b"], "leave one of them out"),
        (["--across", "host", "--bundle", "b"], "leave --bundle out"),
        (["--across", "host", "--level", "1"], "leave --level out"),
    ],
)
def test_options_that_exclude_each_other(arguments: list[str], message: str, tiny_onnx: Path, invoke: Invoke) -> None:
    """Breaks if an option is ignored without a word."""
    result = invoke("validate", tiny_onnx, *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_refusals(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a report that cannot be written, or a level that cannot be run, is found out after the work."""
    named = invoke("validate", tiny_onnx, "--bundle", tiny_bundle, "--report", tmp_path / "r.pdf")
    assert named.exit_code == 2 and "end it in .html" in named.stderr
    nothing = invoke("validate", "--bundle", tiny_bundle)
    assert nothing.exit_code == 2 and "give the ONNX file, or a golden file" in nothing.stderr
    exact = invoke("validate", "--bundle", tiny_bundle, "--golden", tmp_path / "g.npz", "--level", 1)
    assert exact.exit_code == 2 and "evaluate the ONNX file" in exact.stderr
