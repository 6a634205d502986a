"""One HTML page about a profile, or about two and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.profiling import comparison as rule
from bnn_deploy.profiling.comparison import BoardComparison, Comparison
from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report.charts.layers import layers_chart
from bnn_deploy.report.charts.roofline import roofline_chart
from bnn_deploy.report.charts.series import KIND_NAMES, MOST_CHARTED, Series, heading, series_of
from bnn_deploy.report.charts.shares import shares_chart
from bnn_deploy.report.charts.svg import svg
from bnn_deploy.report.page import render

# Rows above the charts; the table of all kernels below them has every change.
MOST_CHANGED = 20


def profile_page(report: ProfileReport) -> bytes:
    """The page of one profile, in UTF-8."""
    series = series_of(report)
    return _page(
        title=heading(report),
        profiles=[("", report)],
        series=series,
        sections=[_section(index, [one], None) for index, one in enumerate(series)],
        comparison=None,
        data={"profile": report.to_dict()},
    )


def comparison_page(before: ProfileReport, after: ProfileReport, comparison: Comparison) -> bytes:
    """The page of two profiles A and B, and what ``compare`` says about them, in UTF-8."""
    boards_before = {board.board: board for board in before.boards}
    boards_after = {board.board: board for board in after.boards}
    sections, series = [], []
    for index, compared in enumerate(comparison.boards):
        of_board = f" {compared.board_after}" if len(comparison.boards) > 1 else ""
        pair = [
            Series(f"A{of_board}", boards_before[compared.board_before]),
            Series(f"B{of_board}", boards_after[compared.board_after]),
        ]
        series += pair
        sections.append(_section(index, pair, compared))
    return _page(
        title=f"{before.model or 'network'}: A {before.target} on {before.device}, B {after.target} on {after.device}",
        profiles=[("A", before), ("B", after)],
        series=series,
        sections=sections,
        comparison=comparison,
        data={"before": before.to_dict(), "after": after.to_dict(), "comparison": comparison.to_dict()},
    )


def _section(index: int, series: Sequence[Series], compared: BoardComparison | None) -> dict[str, Any]:
    """What the template shows of one board, or of one in A and in B."""
    changes = {} if compared is None else {change.step_after: change for change in compared.kernels}
    kernels = series[-1].board.kernels
    return {
        "series": series,
        "board": series[-1].board,
        "compared": compared,
        "charts": _charts(index, series) if index < MOST_CHARTED else [],
        "rows": [{"kernel": kernel, "index": step, "change": changes.get(step)} for step, kernel in enumerate(kernels)],
        "changed": [] if compared is None else compared.changed(),
    }


def _charts(index: int, series: Sequence[Series]) -> list[Markup]:
    numbers = "the table of kernels below has the numbers."
    charts = []
    roofline = roofline_chart(series)
    if roofline is not None:
        said = f"Binary kernels by multiply-accumulates per byte and per second; {numbers}"
        charts.append(svg(f"roofline{index}", roofline, said))
    said = f"Median time of each layer in the order of execution; {numbers}"
    return [*charts, svg(f"layers{index}", layers_chart(series), said)]


def _shares(series: Sequence[Series]) -> Markup:
    said = "; ".join(
        f"{one.label or 'time'}: "
        + ", ".join(f"{KIND_NAMES[kind]} {100 * share:.1f}%" for kind, share in one.board.share_by_kind.items())
        for one in series
    )
    return svg("shares", shares_chart(series), f"{said}.")


def _page(
    *,
    title: str,
    profiles: Sequence[tuple[str, ProfileReport]],
    series: Sequence[Series],
    sections: Sequence[dict[str, Any]],
    comparison: Comparison | None,
    data: dict[str, Any],
) -> bytes:
    return render(
        "profile_page.html.jinja",
        title,
        data,
        profiles=profiles,
        overview=_shares(series),
        sections=sections,
        comparison=comparison,
        rule=rule,
        machine=machine_text,
        emulated=any(board.emulated for _, report in profiles for board in report.boards),
        kind_names=KIND_NAMES,
        most_charted=MOST_CHARTED,
        most_changed=MOST_CHANGED,
    )


def machine_text(state: SystemState) -> str:
    """One line about a board, of what it told."""
    clocks = [cpu.khz for cpu in state.processors if cpu.khz]
    governors = sorted({cpu.governor for cpu in state.processors if cpu.governor})
    parts = [
        state.board or state.host,
        state.kernel,
        f"{len(state.processors)} CPUs" if state.processors else "",
        f"at up to {max(clocks) / 1e3:.0f} MHz" if clocks else "",
        f"governor {', '.join(governors)}" if governors else "",
        f"power mode {state.power_mode}" if state.power_mode else "",
        *(f"{zone} {celsius:.0f} °C" for zone, celsius in (state.temperatures or {}).items()),
    ]
    return "After the last run: " + ", ".join(part for part in parts if part) + "."
