"""What the front end found in a file, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnn_deploy.report.text import table

if TYPE_CHECKING:
    from bnn_deploy.passes.onnx.import_report import ActivationReport, ImportReport

NEAREST_MISSES = 3


def import_text(report: ImportReport) -> str:
    """A table of all layers, and under it the nearest misses with every reason."""
    header = ("layer", "op", "on bits", "input", "weights")
    rows = [(row.name, row.op, "yes" if row.binary else "no", row.activations, row.weights) for row in report.layers]
    lines = [table(header, rows, left=len(header))]
    for row in report.layers:
        if not row.binary:
            lines.append(f"{row.name} stays real-valued: {'; '.join(row.reasons)}.")
    for note in report.activations:
        if note.note:
            lines.append(f"{note.name}: {note.note}")
    misses = report.nearest_misses(NEAREST_MISSES)
    if misses:
        lines.append(f"nearest to binary: {', '.join(row.name for row in misses)}")
    return "\n".join(lines)


def import_notes(report: ImportReport) -> list[str]:
    """What a user should know without having asked, a sentence each."""
    notes = list(report.notes)
    changed = [row for row in report.activations if row.graph_zero != row.compiled_zero]
    if changed:
        made = ", ".join(sorted({f"{row.compiled_zero:+d}" for row in changed}))
        notes.append(
            f"sign(0) is 0 in the file and {made} in {_named(changed)}; 'validate' counts how often that matters, "
            "--sign-zero 0 keeps it"
        )
    kept = [row for row in report.activations if row.kind == "sign with zero"]
    if kept:
        notes.append(
            f"sign(0) is 0 in the file and stays so, with three values instead of two, in {_named(kept)}; --sign-zero -1 "
            "makes these two-valued and faster"
        )
    zeros = [row for row in report.layers if row.zero_weights]
    if zeros:
        total = sum(row.zero_weights for row in zeros)
        shown = ", ".join(f"{row.name} {row.zero_weights}" for row in zeros[:NEAREST_MISSES])
        notes.append(f"{total} weights that are exactly 0 became -1, as asked for ({shown})")
    deviation = max((row.deviation for row in report.layers), default=0.0)
    if deviation > 0:
        notes.append(
            f"weights differ from ±a per output channel by at most {deviation:.1e} of a, rounding that straight-through "
            "estimators leave; they were made exactly ±a"
        )
    return notes


def _named(rows: list[ActivationReport]) -> str:
    """The first few names, and how many there are."""
    shown = ", ".join(row.name for row in rows[:NEAREST_MISSES])
    return shown if len(rows) <= NEAREST_MISSES else f"{len(rows)} activations ({shown} …)"
