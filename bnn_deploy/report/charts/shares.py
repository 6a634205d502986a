"""Chart: how much of the time goes to binary kernels, to the glue between them, and to floats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import FigureBase

from bnn_deploy.profiling.model import KINDS
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.series import KIND_NAMES, Series, title
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import short

# Narrower parts have no room for their number.
LEAST_LABELLED = 0.06


def shares_chart(series: Sequence[Series]) -> Chart:
    """One bar for each of ``series``, of the three kinds' parts of the kernels' summed time."""
    return Chart(0.95 + 0.34 * len(series), partial(_draw, series=series))


def _draw(figure: FigureBase, series: Sequence[Series]) -> None:
    axes = figure.add_subplot()
    for row, one in enumerate(series):
        left = 0.0
        for kind in KINDS:
            share = one.board.share_by_kind[kind]
            label = KIND_NAMES[kind] if row == 0 else None
            bars = axes.barh(row, 100 * share, left=100 * left, height=0.68, color=COLOURS[kind], label=label)
            bars[0].set_gid(f"{one.label or one.board.board}: {KIND_NAMES[kind]} {100 * share:.1f}%")
            if share >= LEAST_LABELLED:
                place = 100 * (left + share / 2)
                axes.text(
                    place, row, f"{100 * share:.0f}%", ha="center", va="center", color=COLOURS["on"], weight="bold"
                )
            left += share
    axes.set_yticks(range(len(series)), [short(one.label, 32) for one in series])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the kernels' summed time")
    axes.set_title(title("Binary, glue and float", series), pad=22)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1, borderpad=0.2, handlelength=1)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
