"""A profile as files, one for each form that was asked for."""

from __future__ import annotations

from pathlib import Path

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.progress import ReportProgress, quiet


def profile_files(
    report: ProfileReport,
    *,
    page: Path | None = None,
    picture: Path | None = None,
    trace: Path | None = None,
    csv: Path | None = None,
    progress: ReportProgress = quiet,
) -> dict[Path, bytes]:
    """What to write to each path that is not None; matplotlib is imported only where charts are asked for."""
    contents = {}
    if page is not None:
        from bnn_deploy.report.profile_page import profile_page

        progress(f"drawing {page}")
        contents[page] = profile_page(report)
    if picture is not None:
        from bnn_deploy.report.profile_picture import profile_picture

        progress(f"drawing {picture}")
        contents[picture] = profile_picture(report)
    if trace is not None:
        from bnn_deploy.report.profile_trace import profile_trace

        contents[trace] = profile_trace(report)
    if csv is not None:
        from bnn_deploy.report.profile_csv import profile_csv

        contents[csv] = profile_csv(report)
    return contents
