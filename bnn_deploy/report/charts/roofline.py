"""Chart: how far the binary kernels are from what memory and processor allow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bnn_deploy.profiling.model import BoardReport, KernelTime
from bnn_deploy.report.charts.chart import Chart
from bnn_deploy.report.charts.series import Series, title
from bnn_deploy.report.charts.style import COLOURS
from bnn_deploy.report.text import short

# Kernels with their names beside the chart: those that take most time.
NAMED = 5
HEIGHT = 4.4


def roofline_chart(series: Sequence[Series]) -> Chart | None:
    """A circle for each binary kernel, its area the time that it takes; of two ``series``, the first one is hollow.

    None if there is nothing to draw: old bundles do not say how many bytes their kernels move.
    """
    return Chart(HEIGHT, partial(_draw, series=series)) if any(points(one.board) for one in series) else None


def points(board: BoardReport) -> list[KernelTime]:
    """The kernels that have a place in it, slowest first: binary work, known bytes, measurable time."""
    found = [kernel for kernel in board.kernels if kernel.bmacs and kernel.bytes and kernel.gmacs_per_s > 0]
    return sorted(found, key=lambda kernel: kernel.us.median, reverse=True)


def _draw(figure: FigureBase, series: Sequence[Series]) -> None:
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    last = len(series) - 1
    for index, one in enumerate(series):
        found = points(one.board)
        slowest = max((kernel.us.median for kernel in found), default=1.0)
        for rank, kernel in enumerate(found):
            x, y = kernel.bmacs / kernel.bytes, kernel.gmacs_per_s
            name = f"{rank + 1}  {short(kernel.layer, 40)}" if rank < NAMED and index == last else None
            (mark,) = axes.plot(
                [x],
                [y],
                "o",
                markersize=4 + 9 * (kernel.us.median / slowest) ** 0.5,
                markerfacecolor=COLOURS["binary"] if index == last else "none",
                markeredgecolor=COLOURS["binary"],
                alpha=0.75,
                linestyle="none",
                label=name,
            )
            numbers = f"{y:.4g} Gbmacs/s at {x:.3g} bmacs per byte, {kernel.us.median:.3g} us"
            mark.set_gid(one.mark(f"{kernel.layer}: {numbers}"))
            if name is not None:
                axes.annotate(
                    str(rank + 1), (x, y), xytext=(6, 4), textcoords="offset points", size=8, color=COLOURS["ink"]
                )
    _ceilings(axes, series[last].board)
    hollow = f"; hollow: {short(series[0].label, 40)}" if len(series) > 1 else ""
    axes.set_xlabel(f"binary multiply-accumulates per byte read and written{hollow}")
    axes.set_ylabel("Gbmacs/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major")
    axes.set_title(title("Roofline of the binary kernels", series))
    legend = axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        title="most time",
        alignment="left",
        handlelength=0,
        handletextpad=0,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_visible(False)


def _ceilings(axes: Axes, board: BoardReport) -> None:
    """Memory's and the processor's limit and the fastest kernel; an emulator has no limits worth drawing."""
    found = points(board)
    if not found or board.emulated:
        return
    x = [kernel.bmacs / kernel.bytes for kernel in found]
    low, high = 0.5 * min(x), 2 * max(x)
    levels = [
        (board.fastest_gmacs_per_s, ":", f"fastest kernel {board.fastest_gmacs_per_s:.0f}"),
        (board.processor_gmacs_per_s, "--", f"{board.ran_on}'s limit {board.processor_gmacs_per_s or 0:.0f}"),
    ]
    top = max(level for level, _, _ in levels if level) * 1.6
    for level, line, text in levels:
        if level:
            axes.axhline(level, linestyle=line, color=COLOURS["quiet"], linewidth=1)
            axes.annotate(text, (low, level), xytext=(2, 2), textcoords="offset points", size=8, color=COLOURS["quiet"])
    if board.copy_bytes_per_second:
        # Bytes per second times MACs per byte.
        slope = board.copy_bytes_per_second * 1e-9
        axes.plot([low, top / slope], [slope * low, top], color=COLOURS["quiet"], linewidth=1)
        middle = (low * min(high, top / slope)) ** 0.5
        axes.annotate(
            f"memory {slope:.1f} GB/s",
            (middle, slope * middle),
            xytext=(4, -10),
            textcoords="offset points",
            size=8,
            color=COLOURS["quiet"],
        )
    axes.set_xlim(low, high)
    axes.set_ylim(0.5 * min(kernel.gmacs_per_s for kernel in found), top)
