"""All charts of a profile as one PNG picture."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report import layers_chart, roofline_chart, shares_chart
from bnn_deploy.report.sections import chart_groups, heading, series_of
from bnn_deploy.report.style import WIDTH, settings

DOTS_PER_INCH = 150


def picture(report: ProfileReport) -> bytes:
    """A PNG file: the shares of all boards, then roofline and layers of each."""
    series = series_of(report)
    charts = [(shares_chart, series)]
    for group in chart_groups(series):
        charts += [(roofline_chart, group)] * roofline_chart.has_points(group) + [(layers_chart, group)]
    heights = [0.5, *(chart.height(shown) for chart, shown in charts)]
    with settings():
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights)
        parts[0].suptitle(heading(report), weight="bold", size=11)
        for part, (chart, shown) in zip(parts[1:], charts, strict=True):
            chart.draw(part, shown)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()
