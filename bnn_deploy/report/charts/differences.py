"""Chart: how many values differ in each layer, and how many of these rounding explains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from bnn_deploy.report.charts.along_network import Place, mark_first_wrong, places, set_axis, set_legend, set_log_axis
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import count_text, short
from bnn_deploy.validation.report import TensorResult

HEIGHT = 2.9
# Half of the room that a value has.
OFFSET = 0.2
# Lines of one point; fewer values than this have thicker ones.
CROWDED = 300
MOST_POINTS = 14.0
# A single differing value is a line that can be seen.
FLOOR = 0.5


def differences_chart(rows: Sequence[TensorResult]) -> Chart | None:
    """Two lines up from each value: what rounding does not explain, and what it does; None if no value differs."""
    return Chart(HEIGHT, partial(_draw, rows=rows)) if any(row.differing for row in rows) else None


def _draw(figure: FigureBase, rows: Sequence[TensorResult]) -> None:
    axes = figure.add_subplot()
    axes.set_yscale("log")
    width = min(MOST_POINTS, max(1.0, CROWDED / len(rows)))
    shown = places(rows)
    for place in shown:
        row = place.row
        _line(axes, place, row.differing - row.within_margin, -OFFSET, "bad", "wrong", width)
        _line(axes, place, row.within_margin, OFFSET, "float", "explained by rounding", width)
    set_axis(axes, len(rows))
    axes.set_ylim(FLOOR, 2.5 * max(row.differing for row in rows))
    axes.set_ylabel("differing values")
    set_log_axis(axes.yaxis, lambda value: count_text(round(value)))
    axes.yaxis.grid(True)
    mark_first_wrong(axes, shown)
    axes.set_title("Differing values along the network", pad=15)
    handles = [axes.plot([], [], color=COLOURS["bad"], linewidth=6, label="wrong")[0]]
    handles += axes.plot([], [], color=COLOURS["float"], linewidth=6, label="explained by rounding")
    set_legend(axes, handles=handles)


def _line(axes: Axes, place: Place, count: int, offset: float, colour: str, what: str, width: float) -> None:
    if not count:
        return
    x = place.number + offset
    (line,) = axes.plot([x, x], [FLOOR, count], color=COLOURS[colour], linewidth=width, solid_capstyle="butt")
    line.set_gid(f"{place.number} {short(place.row.layer, 200)}: {count:,} of {place.row.compared:,} {what}")
