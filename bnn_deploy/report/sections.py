"""What goes together into one chart, and what reports are called."""

from __future__ import annotations

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.style import Series

# Charts of more boards would make a page nobody reads to its end; its tables have all.
MOST_CHARTED = 8


def series_of(report: ProfileReport) -> list[Series]:
    """The boards of a profile, named only if they are several."""
    several = len(report.boards) > 1
    return [Series(board.board if several else "", board) for board in report.boards]


def chart_groups(series: list[Series]) -> list[list[Series]]:
    """One group for each board: the first ``MOST_CHARTED`` ones."""
    return [[one] for one in series[:MOST_CHARTED]]


def heading(report: ProfileReport) -> str:
    """Such as "bcdnet_tiny, rpi4 on ssh://pi@board, batch 1, threads: 4"."""
    name = report.model or "network"
    return f"{name}: {report.target} on {report.device}, batch {report.batch}, threads: {report.threads}"
