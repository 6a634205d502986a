"""Chart: the time of each layer, in the order of execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from matplotlib.figure import FigureBase

from bnn_deploy.profiling.model import KINDS
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.series import KIND_NAMES, Series, title
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import short

# More bars than this are no longer read; the others are summed in one.
MOST_ROWS = 30


@dataclass
class Row:
    """A bar: microseconds by kind, one dictionary for each series."""

    name: str
    us: list[dict[str, float]] = field(default_factory=list)

    def total(self, index: int) -> float:
        """Microseconds in one series."""
        return sum(self.us[index].values())

    @property
    def largest(self) -> float:
        """Microseconds in the series where it takes longest."""
        return max(self.total(index) for index in range(len(self.us)))


def layers_chart(series: Sequence[Series]) -> Chart:
    """One bar for each layer and each of at most two ``series``; of two, the first one is the paler."""
    rows = _rows(series)
    height = 1.3 + len(rows) * (0.2 if len(series) == 1 else 0.3)
    return Chart(height, partial(_draw, series=series, rows=rows))


def _rows(series: Sequence[Series]) -> list[Row]:
    """Layers in the order of execution, each with all its kernels; beyond ``MOST_ROWS``, the quickest in one last row."""
    by_layer: dict[str, Row] = {}
    for index, one in enumerate(series):
        for kernel in one.board.kernels:
            row = by_layer.setdefault(kernel.layer, Row(kernel.layer, [{} for _ in series]))
            row.us[index][kernel.kind] = row.us[index].get(kernel.kind, 0.0) + kernel.us.median
    rows = list(by_layer.values())
    if len(rows) <= MOST_ROWS:
        return rows
    slowest = sorted(rows, key=lambda row: row.largest, reverse=True)[:MOST_ROWS]
    kept = {id(row) for row in slowest}
    others = [row for row in rows if id(row) not in kept]
    rest = Row(f"{len(others)} other layers", [{} for _ in series])
    for row in others:
        for index in range(len(series)):
            for kind, us in row.us[index].items():
                rest.us[index][kind] = rest.us[index].get(kind, 0.0) + us
    return [*(row for row in rows if id(row) in kept), rest]


def _draw(figure: FigureBase, series: Sequence[Series], rows: Sequence[Row]) -> None:
    axes = figure.add_subplot()
    thickness = 0.76 / len(series)
    longest = max((row.largest for row in rows), default=0.0) or 1.0
    for place, row in enumerate(rows):
        for index, one in enumerate(series):
            y = place + (index - (len(series) - 1) / 2) * thickness
            left = 0.0
            for kind in KINDS:
                us = row.us[index].get(kind, 0.0)
                if us > 0:
                    bars = axes.barh(
                        y,
                        us,
                        left=left,
                        height=thickness * 0.94,
                        color=COLOURS[kind],
                        alpha=1.0 if index == len(series) - 1 else 0.5,
                    )
                    bars[0].set_gid(one.mark(f"{row.name}: {us:.3g} us {KIND_NAMES[kind]}"))
                left += us
            size = 7 if len(series) == 1 else 6
            axes.text(left + 0.006 * longest, y, f"{left:.3g}", va="center", size=size, color=COLOURS["quiet"])
    axes.set_yticks(range(len(rows)), [short(row.name, 52) for row in rows], size=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.06 * longest)
    axes.set_xlabel("µs, median" + (f"; paler: {short(series[0].label, 40)}" if len(series) > 1 else ""))
    axes.xaxis.grid(True)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title("Time by layer, in the order of execution", series), pad=22)
    handles = [axes.barh(0, 0, color=COLOURS[kind], label=KIND_NAMES[kind]) for kind in KINDS]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        borderaxespad=0.1,
        borderpad=0.2,
        handlelength=1,
    )
