"""The kernels of a profile as CSV."""

from __future__ import annotations

import csv
import io

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.profile_csv import COLUMNS, profile_csv


def test_csv_round_trip(nasty: ProfileReport) -> None:
    """Breaks if a number loses digits in CSV, or a name with commas, quotes or line breaks moves the columns."""
    rows = list(csv.DictReader(io.StringIO(profile_csv(nasty).decode(), newline="")))
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
    rows = list(csv.DictReader(io.StringIO(profile_csv(nasty).decode(), newline="")))
    for row in rows:
        assert not row["layer"].startswith(("=", "+", "-", "@")) and not row["kernel"].startswith(("=", "+", "-", "@"))
    assert "'=cmd|' /C calc'!A0" in {row["layer"] for row in rows}
