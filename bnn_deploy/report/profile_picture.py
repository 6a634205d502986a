"""All charts of a profile as one PNG picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.charts.layers import layers_chart
from bnn_deploy.report.charts.roofline import roofline_chart
from bnn_deploy.report.charts.series import MOST_CHARTED, heading, series_of
from bnn_deploy.report.charts.shares import shares_chart
from bnn_deploy.report.charts.style import WIDTH, settings

DOTS_PER_INCH = 150
HEADING_HEIGHT = 0.5


def profile_picture(report: ProfileReport) -> bytes:
    """A PNG file: the shares of all boards, then roofline and layers of each."""
    series = series_of(report)
    found = [shares_chart(series)]
    for one in series[:MOST_CHARTED]:
        found += [chart for chart in (roofline_chart([one]), layers_chart([one])) if chart is not None]
    heights = [HEADING_HEIGHT, *(chart.height for chart in found)]
    with settings():
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), squeeze=False, height_ratios=heights)[:, 0]
        parts[0].suptitle(heading(report), weight="bold", size=11)
        for part, chart in zip(parts[1:], found, strict=True):
            chart.draw(part)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()
