"""A validation as it is printed."""

from __future__ import annotations

import pytest

from bnn_deploy.report.validation_text import validation_text
from bnn_deploy.report.verdict import verdict
from bnn_deploy.validation.report import ValidationReport
from tests.report.validation_samples import failing, golden, passing


def test_a_failure() -> None:
    """Breaks if the verdict is not the first line, the wrong layers are not listed, or right ones are without being asked."""
    lines = validation_text(failing(), all_layers=False).splitlines()
    assert lines[0] == verdict(failing()).sentence and lines[1].startswith("What to do: Its kernel does what")
    marks = [line.split("   ")[0] for line in lines if line.startswith("level ")]
    assert marks == ["level 1 passed", "level 2 FAILED", "level 3 FAILED"]
    (header,) = (number for number, line in enumerate(lines) if line.startswith("layer "))
    assert lines[header].endswith("  first difference")
    bits, floats, nothing = lines[header + 1 : header + 4]
    assert bits.endswith("image 3, channel 12, row 4, column 5: +1 became -1 (data)") and " 50,176 " in bits
    assert floats.endswith("0.123456789 became NaN (data)") and nothing == ""
    assert "top-1 agreement  1.2000% (12 of 1000; 95% interval 0.69% to 2.09%)" in lines


def test_all_layers() -> None:
    """Breaks if --all-layers leaves out what is right."""
    few = validation_text(passing(), all_layers=False).splitlines()
    all_lines = validation_text(passing(), all_layers=True).splitlines()
    # Five rows, a header and an empty line for each of two levels.
    assert len(all_lines) == len(few) + 2 * (5 + 2)


def test_boards_and_zeros() -> None:
    """Breaks if a board that was lost, or values on their threshold, go unmentioned."""
    lines = validation_text(golden(), all_layers=False).splitlines()
    assert lines[-2:] == [
        "board            pi-2: 40 images in 1.0 s, lost: no answer in 60 s",
        "sign(0)          2 of 1M binarised values were exactly at the threshold (the file says 0, the bundle -1): sign.1 2",
    ]


@pytest.mark.parametrize("all_layers", [False, True])
def test_nothing_moves_the_cursor(report: ValidationReport, all_layers: bool) -> None:
    """Breaks if the name of a layer writes over what was printed before, or breaks a table."""
    rows = [
        line for line in validation_text(report, all_layers).splitlines() if line.startswith("  ") or "  bits" in line
    ]
    assert all(line.isprintable() for line in rows)
