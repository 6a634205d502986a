"""CSV, Chrome trace and picture of a profile, and how files are written."""

from __future__ import annotations

import csv
import io
import json
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from bnn_deploy.errors import InputError
from bnn_deploy.profiling import ProfileReport
from bnn_deploy.report.chrome_trace import chrome_trace
from bnn_deploy.report.csv_table import COLUMNS, csv_table
from bnn_deploy.report.files import check_outputs, write_files
from bnn_deploy.report.picture import picture

Invoke = Callable[..., Result]

# "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: what a complete and
# a metadata event must have.
TRACE_SCHEMA = {
    "type": "object",
    "required": ["traceEvents"],
    "properties": {
        "traceEvents": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "ph", "pid", "tid", "args"],
                "properties": {
                    "name": {"type": "string"},
                    "ph": {"enum": ["X", "M"]},
                    "pid": {"type": "integer"},
                    "tid": {"type": "integer"},
                },
                "if": {"properties": {"ph": {"const": "X"}}},
                "then": {
                    "required": ["ts", "dur", "cat"],
                    "properties": {"ts": {"type": "number", "minimum": 0}, "dur": {"type": "number", "minimum": 0}},
                },
            },
        },
        "displayTimeUnit": {"enum": ["ms", "ns"]},
    },
}


def test_csv_round_trip(nasty: ProfileReport) -> None:
    """Breaks if a number loses digits in CSV, or a name with commas, quotes or line breaks moves the columns."""
    rows = list(csv.DictReader(io.StringIO(csv_table(nasty).decode(), newline="")))
    (board,) = nasty.boards
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(board.kernels)
    for step, (row, kernel) in enumerate(zip(rows, board.kernels, strict=True)):
        assert row["layer"].removeprefix("'") == kernel.layer and row["kernel"].removeprefix("'") == kernel.name
        assert (int(row["step"]), row["kind"], int(row["bmacs"])) == (step, kernel.kind, kernel.bmacs)
        assert float(row["us_median"]) == kernel.us.median and float(row["share"]) == kernel.share
        assert (float(row["us_interval_low"]), float(row["us_interval_high"])) == kernel.us.interval
        assert float(row["gmacs_per_s"]) == kernel.gmacs_per_s


def test_csv_has_no_formulas(nasty: ProfileReport) -> None:
    """Breaks if a layer's name is executed by the spreadsheet that opens the table."""
    rows = list(csv.DictReader(io.StringIO(csv_table(nasty).decode(), newline="")))
    for row in rows:
        assert not row["layer"].startswith(("=", "+", "-", "@")) and not row["kernel"].startswith(("=", "+", "-", "@"))
    assert "'=cmd|' /C calc'!A0" in {row["layer"] for row in rows}


def test_trace(nasty: ProfileReport) -> None:
    """Breaks if a trace viewer refuses the file, or kernels overlap, leave gaps or lose their time."""
    document = json.loads(chrome_trace(nasty))
    jsonschema.validate(document, TRACE_SCHEMA)
    events = [event for event in document["traceEvents"] if event["ph"] == "X" and event["cat"] != "network"]
    (board,) = nasty.boards
    assert [event["dur"] for event in events] == [kernel.us.median for kernel in board.kernels]
    assert [event["args"]["layer"] for event in events] == [kernel.layer for kernel in board.kernels]
    end = 0.0
    for event in events:
        assert event["ts"] == pytest.approx(end)
        end += event["dur"]
    (whole,) = (event for event in document["traceEvents"] if event.get("cat") == "network")
    assert whole["dur"] == pytest.approx(end)


def test_picture(nasty: ProfileReport, recwarn: pytest.WarningsRecorder) -> None:
    """Breaks if the picture is no PNG of a size that can be looked at, or a name is taken for a formula."""
    content = picture(nasty)
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    assert 1000 <= width <= 2000 and 1000 <= height <= 4000
    assert not recwarn.list


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


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Breaks if half a file, or one output of two, stays behind when the disk is full."""
    code = f"""
import resource, signal
from pathlib import Path
from bnn_deploy.report.files import write_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
folder = Path({str(tmp_path)!r})
write_files({{folder / "small.csv": b"x" * 1000, folder / "large.html": b"x" * 100_000}})
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    (tmp_path / "small.csv").write_text("old")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "InputError" in done.stderr and "large.html: cannot be written (File too large)" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["small.csv"]
    assert (tmp_path / "small.csv").read_text() == "old"


def test_same_file_by_two_names(tmp_path: Path) -> None:
    """Breaks if two outputs overwrite each other because one is named through a link."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="asked for twice"):
        check_outputs([tmp_path / "a", tmp_path / "link" / "a"])
    write_files({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "b").read_bytes() == b"2"
