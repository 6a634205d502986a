"""The kernels of a profile as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import io

from bnn_deploy.profiling.model import ProfileReport

COLUMNS = (
    "board",
    "emulated",
    "step",
    "layer",
    "kind",
    "kernel",
    "us_median",
    "us_min",
    "us_p90",
    "us_quartile_1",
    "us_quartile_3",
    "us_interval_low",
    "us_interval_high",
    "share",
    "bytes",
    "bmacs",
    "gmacs_per_s",
)


def profile_csv(report: ProfileReport) -> bytes:
    """RFC 4180 in UTF-8: ``COLUMNS``, then one line for each kernel of each board in the order of execution.

    Names that a spreadsheet would take for a formula get a "'" before them, which spreadsheets do not show. Numbers have all
    their digits; a missing interval is empty.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for board in report.boards:
        for step, kernel in enumerate(board.kernels):
            low, high = kernel.us.interval or ("", "")
            writer.writerow(
                (
                    _text(board.board),
                    str(board.emulated).lower(),
                    step,
                    _text(kernel.layer),
                    kernel.kind,
                    _text(kernel.name),
                    kernel.us.median,
                    kernel.us.min,
                    kernel.us.p90,
                    *kernel.us.quartiles,
                    low,
                    high,
                    kernel.share,
                    kernel.bytes,
                    kernel.bmacs,
                    kernel.gmacs_per_s,
                )
            )
    return stream.getvalue().encode(errors="replace")


def _text(value: str) -> str:
    # https://owasp.org/www-community/attacks/CSV_Injection
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "'")) else value
