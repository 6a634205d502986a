"""Chart: how close the reference's values come to the thresholds of the signs that they go through."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import log10

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.ticker import NullLocator

from bnn_deploy.report.charts.along_network import places
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import count_text, power_text
from bnn_deploy.validation.report import HISTOGRAM_EDGES, TensorResult

HEIGHT = 3.9
LABELS = ("exactly on it", *(f"to {edge:.0e}".replace("e-0", "e-") for edge in HISTOGRAM_EDGES[1:]), "farther")
# Parts of a layer's values from which on a shade is used, and how opaque it is.
SHADES = (
    (0.0, 0.12, "< 1 in 1M"),
    (1e-6, 0.27, "1 in 1M"),
    (1e-4, 0.45, "1 in 10k"),
    (1e-2, 0.7, "1%"),
    (0.1, 1.0, "10% of a layer"),
)
MOST_TICKS = 9


def margins_chart(rows: Sequence[TensorResult], margin: float | None) -> Chart | None:
    """Left a column for each sign, darker where more of its values are; right the sum, on the same decades.

    None if there are no signs whose distances were counted.
    """
    counted = any(row.histogram is not None and sum(row.histogram) for row in rows)
    return Chart(HEIGHT, partial(_draw, rows=rows, margin=margin)) if counted else None


def totals(rows: Sequence[TensorResult]) -> list[int]:
    """The histogram of all ``rows`` together."""
    counts = [row.histogram for row in rows if row.histogram is not None]
    return [sum(column) for column in zip(*counts, strict=True)]


def _draw(figure: FigureBase, rows: Sequence[TensorResult], margin: float | None) -> None:
    shown = [place for place in places(rows) if place.row.histogram is not None]
    strip, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.25))
    _strip(strip, np.array([place.row.histogram for place in shown], float))
    step = -(-len(shown) // MOST_TICKS)
    ticks = range(0, len(shown), step)
    strip.set_xticks(list(ticks), [str(shown[index].number) for index in ticks])
    strip.set_xlim(-0.5, len(shown) - 0.5)
    strip.set_xlabel("signs in the order of execution (numbers in the table)")
    strip.set_ylabel("distance / largest value")
    strip.set_yticks(range(len(LABELS)), LABELS)
    strip.set_ylim(-0.5, len(LABELS) - 0.5)
    strip.tick_params(axis="y", length=0)
    strip.set_title("Distance of activations from their threshold", pad=24)
    handles = [Patch(color=COLOURS["binary"], alpha=alpha, label=label) for _, alpha, label in SHADES]
    strip.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        borderaxespad=0.1,
        borderpad=0.2,
        handlelength=1,
        columnspacing=1.2,
    )
    _sum(bars, totals(rows))
    if margin:
        place = _place(margin)
        for axes in (strip, bars):
            axes.axhline(place, color=COLOURS["bad"], linewidth=1, linestyle="--")
        bars.annotate(
            f"margin {power_text(margin)}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            size=8,
            color=COLOURS["bad"],
        )


def _strip(axes: Axes, counts: np.ndarray) -> None:
    """One path for each shade: neighbours of the same shade are one rectangle, so that deep networks stay small."""
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shade = np.searchsorted([low for low, _, _ in SHADES], parts, side="right") - 1
    shade[counts == 0] = -1
    for index, (_, alpha, label) in enumerate(SHADES):
        corners: list[tuple[float, float]] = []
        for decade in range(counts.shape[1]):
            found = np.flatnonzero(np.diff(np.concatenate([[False], shade[:, decade] == index, [False]])))
            for left, right in found.reshape(-1, 2) - 0.5:
                low, high = decade - 0.5, decade + 0.5
                corners += [(left, low), (right, low), (right, high), (left, high), (left, low)]
        if corners:
            one = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
            path = Path(corners, one * (len(corners) // 5))
            patch = PathPatch(path, facecolor=COLOURS["binary"], alpha=alpha, linewidth=0, snap=False)
            patch.set_gid(f"{label if index == 0 else 'from ' + label}: part of the layer's values at this distance")
            axes.add_patch(patch)


def _sum(axes: Axes, counts: Sequence[int]) -> None:
    largest = max(counts)
    axes.set_xscale("log")
    axes.set_xlim(0.5, 40 * largest)
    for decade, count in enumerate(counts):
        if count:
            bars = axes.barh(decade, count - 0.5, left=0.5, height=0.8, color=COLOURS["binary"])
            bars[0].set_gid(f"{LABELS[decade]}: {count:,} values")
        axes.annotate(
            count_text(count),
            (max(count, 0.5), decade),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size=8,
            color=COLOURS["quiet"],
        )
    axes.xaxis.set_major_locator(NullLocator())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.set_xlabel("values of all signs, logarithmic")


def _place(margin: float) -> float:
    """Where a relative distance is among the decades: 1e-8 is the upper end of the second one."""
    return max(0.5, min(len(LABELS) - 1.0, log10(margin) + 9.5))
