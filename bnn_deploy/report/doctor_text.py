"""What doctor found, for a terminal: a table for each board, what to do about it, and whether bnn-deploy can work there."""

from __future__ import annotations

from bnn_deploy.doctor.report import BoardChecks, DoctorReport
from bnn_deploy.report.text import table


def doctor_text(report: DoctorReport) -> str:
    """Lines without the last line break."""
    lines: list[str] = []
    for board in report.boards:
        lines += [f"{board.board}:"] if report.device is not None else []
        lines += [*_checks(board), *([""] if len(report.boards) > 1 else [])]
    subject = "here" if report.device is None else f"on {report.device}"
    cannot = f"bnn-deploy cannot work {subject} until the errors above are gone."
    return "\n".join([*lines, f"bnn-deploy can work {subject}." if report.works else cannot])


def _checks(board: BoardChecks) -> list[str]:
    rows = [(check.status.value, check.name, check.found) for check in board.checks]
    advice = [f"{check.name}: {check.advice}" for check in board.checks if check.advice]
    return [table(("status", "check", "found"), rows, left=3), *advice]
