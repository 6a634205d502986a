"""What the charts of a profile share: whose times they show, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bnn_deploy.profiling.model import BoardReport, ProfileReport

KIND_NAMES = {"binary": "binary", "pack": "glue (sign, pack)", "float": "float"}

# Charts of more boards would make a page nobody reads to its end; its tables have all.
MOST_CHARTED = 8


@dataclass(frozen=True)
class Series:
    """What a chart shows once for each: a board's times.

    Attributes:
        label: "" where there is only one.
        board: the times.
    """

    label: str
    board: BoardReport

    def mark(self, text: str) -> str:
        """What a mark of a chart is called: ``text``, behind the label if there is one."""
        return f"{self.label}: {text}" if self.label else text


def series_of(report: ProfileReport) -> list[Series]:
    """The boards of a profile, named only if they are several."""
    several = len(report.boards) > 1
    return [Series(board.board if several else "", board) for board in report.boards]


def title(text: str, series: Sequence[Series]) -> str:
    """The title of a chart; times of an emulator are called that wherever they are drawn."""
    return f"{text} (EMULATED: no device's speed)" if any(one.board.emulated for one in series) else text


def heading(report: ProfileReport) -> str:
    """The title of all charts together, such as "bcdnet_tiny: rpi4 on ssh://pi@board, batch 1, threads: 4"."""
    name = report.model or "network"
    return f"{name}: {report.target} on {report.device}, batch {report.batch}, threads: {report.threads}"
