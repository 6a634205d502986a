"""What ``validate --across`` found, for a terminal: one line per run, and the verdict."""

from __future__ import annotations

from bnn_deploy.report.text import table
from bnn_deploy.validation.across import AcrossReport, AcrossRun

SHOWN_DIGITS = 16


def across_text(report: AcrossReport) -> str:
    """Lines without the last line break."""
    header = ("place", "target", "device", "threads", "SHA-256 of the logits", "bits")
    rows = [
        (run.place, run.target, run.device, str(run.threads), run.sha256[:SHOWN_DIGITS], _bits(run, report.images))
        for run in report.runs
    ]
    same = "all logits are the same bits" if report.passed else "the logits are not the same bits everywhere"
    subject = f"{report.model_file}: {report.images} images ({report.data})"
    return "\n".join([subject, table(header, rows, left=len(header)), f"{same}."])


def _bits(run: AcrossRun, images: int) -> str:
    if run.equal:
        return "equal"
    text = f"{run.differing_images} of {images} images differ, by at most {run.largest_ulps} ULP"
    return text if run.repeatable else f"{text}; two runs differ"
