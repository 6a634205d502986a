"""Chart: in how many images the bundle agrees with the reference, and how often both are right."""

from __future__ import annotations

from functools import partial

from matplotlib.figure import FigureBase

from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import percent_text
from bnn_deploy.validation.report import ModelResult


def agreement_chart(model: ModelResult) -> Chart:
    """A dot for each part, 95% intervals as lines, and the agreement asked for as another one."""
    return Chart(1.25 + 0.27 * len(rows_of(model)), partial(_draw, model=model))


def rows_of(model: ModelResult) -> list[tuple[str, float, tuple[float, float] | None, str]]:
    """Name, part of 1, interval and colour of each line."""
    rows: list[tuple[str, float | None, tuple[float, float] | None, str]] = [
        ("same class (top-1)", model.top1_agreement, model.top1_agreement_interval, "binary"),
        ("reference's class in top-5", model.top5_agreement, None, "binary"),
        ("top-1 accuracy, reference", model.reference_top1, model.reference_top1_interval, "float"),
        ("top-1 accuracy, bundle", model.bundle_top1, model.bundle_top1_interval, "binary"),
        ("top-5 accuracy, reference", model.reference_top5, None, "float"),
        ("top-5 accuracy, bundle", model.bundle_top5, None, "binary"),
    ]
    return [(name, part, interval, colour) for name, part, interval, colour in rows if part is not None]


def _draw(figure: FigureBase, model: ModelResult) -> None:
    axes = figure.add_subplot()
    rows = rows_of(model)
    lowest = min(model.min_agreement, *(part if interval is None else interval[0] for _, part, interval, _ in rows))
    # What differs in the last percent is not seen on an axis from 0, which accuracies without labels do not need.
    start = max(0, int(100 * lowest - 0.5) // 5 * 5)
    for place, (name, part, interval, colour) in enumerate(rows):
        if interval is not None:
            low, high = interval
            axes.plot([100 * low, 100 * high], [place, place], color=COLOURS[colour], linewidth=2.5, alpha=0.45)
        (mark,) = axes.plot([100 * part], [place], "o", color=COLOURS[colour], markersize=7, clip_on=False, zorder=3)
        mark.set_gid(f"{name}: {percent_text(part)}")
        axes.annotate(
            percent_text(part),
            (1.015, place),
            xycoords=("axes fraction", "data"),
            va="center",
            size=9,
            color=COLOURS["ink"],
        )
    axes.axvline(100 * model.min_agreement, color=COLOURS["bad"], linestyle="--", linewidth=1)
    axes.annotate(
        f"asked for: {percent_text(model.min_agreement)}",
        (100 * model.min_agreement, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right" if 100 * model.min_agreement > (start + 100) / 2 else "left",
        size=8,
        color=COLOURS["bad"],
    )
    axes.set_yticks(range(len(rows)), [name for name, _, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(start, 100)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.grid(True)
    axes.set_xlabel("% of the images" + ("" if start == 0 else f"; the axis starts at {start}%"))
    axes.set_title("Agreement and accuracy", pad=16)
