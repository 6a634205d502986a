"""Chart: the largest error of each float value, beside the largest that rounding could make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import floor, isfinite, log10

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from bnn_deploy.report.charts.along_network import Place, mark_first_wrong, places, set_axis, set_legend, set_log_axis
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import power_text, short
from bnn_deploy.validation.report import TensorResult

HEIGHT = 3.1
# Values drawn one by one, with names to hover over; those with errors closest to their margin.
MOST_NAMED = 120


def errors_chart(rows: Sequence[TensorResult]) -> Chart | None:
    """A dash for the margin and a dot for the error of each float; no error is at the bottom, NaN at the top.

    None if no float differs at all.
    """
    return Chart(HEIGHT, partial(_draw, rows=rows)) if any(row.max_error for row in rows) else None


def _draw(figure: FigureBase, rows: Sequence[TensorResult]) -> None:
    axes = figure.add_subplot()
    axes.set_yscale("log")
    shown = [place for place in places(rows) if place.row.max_error is not None]
    positive = [
        size
        for place in shown
        for size in (place.row.max_error, place.row.margin)
        if size is not None and size > 0 and isfinite(size)
    ]
    # A decade below all others stands for none, one above for NaN and infinity.
    bottom = 10.0 ** (floor(log10(min(positive, default=1e-9))) - 1)
    top = 10.0 ** (floor(log10(max(positive, default=1.0))) + 2)
    margins = [(place.number, place.row.margin) for place in shown if place.row.margin]
    axes.plot(
        [number for number, _ in margins],
        [margin for _, margin in margins],
        linestyle="none",
        marker="_",
        color=COLOURS["quiet"],
        markersize=min(12.0, max(3.0, 300 / len(rows))),
        label="margin: what rounding may make",
    )
    heights = {id(place): _height(place, bottom, top) for place in shown}
    worst = sorted(shown, key=lambda place: (place.row.passed, -_part(place)))
    size = 3.0 if len(shown) > MOST_NAMED else 5.0
    for place in worst[:MOST_NAMED]:
        _dot(axes, place, heights[id(place)], size)
    rest = worst[MOST_NAMED:]
    axes.plot(
        [place.number for place in rest],
        [heights[id(place)] for place in rest],
        "o",
        color=COLOURS["binary"],
        markersize=size,
        linestyle="none",
    )
    set_axis(axes, len(rows))
    axes.set_ylim(bottom / 2, top * 2)
    axes.text(0.002, bottom, "none", transform=axes.get_yaxis_transform(), size=8, va="bottom", color=COLOURS["quiet"])
    if any(not isfinite(place.row.max_error or 0.0) for place in shown):
        axes.text(
            0.002, top, "NaN or infinite", transform=axes.get_yaxis_transform(), size=8, va="top", color=COLOURS["bad"]
        )
    axes.set_ylabel("largest error")
    set_log_axis(axes.yaxis, power_text)
    axes.yaxis.grid(True)
    mark_first_wrong(axes, shown)
    axes.set_title("Errors of floats along the network", pad=15)
    axes.plot([], [], "o", color=COLOURS["binary"], linestyle="none", label="error")
    if any(not place.row.passed for place in shown):
        axes.plot([], [], "X", color=COLOURS["bad"], linestyle="none", label="wrong")
    set_legend(axes)


def _dot(axes: Axes, place: Place, height: float, size: float) -> None:
    row = place.row
    wrong = not row.passed
    (mark,) = axes.plot(
        [place.number],
        [height],
        "X" if wrong else "o",
        color=COLOURS["bad" if wrong else "binary"],
        markersize=1.6 * size if wrong else size,
        linestyle="none",
    )
    margin = "" if row.margin is None else f", margin {row.margin:.3g}"
    mark.set_gid(f"{place.number} {short(row.layer, 200)}: largest error {row.max_error:.3g}{margin}")


def _height(place: Place, bottom: float, top: float) -> float:
    error = place.row.max_error
    assert error is not None
    return top if not isfinite(error) else max(error, bottom)


def _part(place: Place) -> float:
    """Error as a part of its margin; what has no margin counts by its error."""
    error, margin = place.row.max_error or 0.0, place.row.margin or 1.0
    return error / margin if isfinite(error) else float("inf")
