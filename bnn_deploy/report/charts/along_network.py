"""What the charts of a validation share: the network from left to right, one place for each value compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import short
from bnn_deploy.validation.report import TensorResult

# Few values stand in the middle of a chart as wide as those of a network of this many.
LEAST_WIDTH = 6


@dataclass(frozen=True)
class Place:
    """A value compared, and its number in the table: from 1, in the order of execution."""

    number: int
    row: TensorResult


def places(rows: Sequence[TensorResult]) -> list[Place]:
    """All ``rows`` with their numbers."""
    return [Place(number, row) for number, row in enumerate(rows, start=1)]


def set_axis(axes: Axes, count: int) -> None:
    """The axis along the network of ``count`` values."""
    spare = max(0.0, (LEAST_WIDTH - count) / 2)
    axes.set_xlim(0.5 - spare, count + 0.5 + spare)
    ticks = MaxNLocator(integer=True, min_n_ticks=1).tick_values(1, count)
    axes.set_xticks([tick for tick in ticks if 1 <= tick <= count])
    axes.set_xlabel("value in the order of execution (its number in the table)")


def set_legend(axes: Axes, **options: Any) -> None:
    """A legend on the line of the title, which leaves the line below it to ``mark_first_wrong``."""
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        borderaxespad=1.7,
        borderpad=0,
        handlelength=1,
        columnspacing=1.2,
        **options,
    )


def set_log_axis(axis: Axis, text: Callable[[float], str]) -> None:
    """Decades, with ``text`` of their number: matplotlib's own labels are formulas, which names must not be."""
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())


def mark_first_wrong(axes: Axes, shown: Sequence[Place]) -> None:
    """A line at the first wrong value, with its layer's name."""
    first = next((place for place in shown if not place.row.passed), None)
    if first is None:
        return
    axes.axvline(first.number, color=COLOURS["bad"], linewidth=1, linestyle=":", zorder=0)
    # On the side where there is more room.
    low, high = axes.get_xlim()
    left = first.number > (low + high) / 2
    axes.annotate(
        f"first wrong: {short(first.row.layer, 60)}",
        (first.number, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if left else 4, 3),
        textcoords="offset points",
        ha="right" if left else "left",
        va="bottom",
        size=8,
        color=COLOURS["bad"],
    )
