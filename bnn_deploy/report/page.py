"""One HTML page about a profile, or about two and what changed: everything in one file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.profiling.comparison import BoardComparison, Comparison
from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report import layers_chart, roofline_chart, shares_chart
from bnn_deploy.report.rendering import render
from bnn_deploy.report.sections import MOST_CHARTED, heading, series_of
from bnn_deploy.report.style import KIND_NAMES, Series
from bnn_deploy.report.svg import svg

# Rows above the charts; the table of all kernels below them has every change.
MOST_CHANGED = 20


def profile_page(report: ProfileReport) -> bytes:
    """The page of one profile, in UTF-8."""
    series = series_of(report)
    sections = [_section(index, [one], None) for index, one in enumerate(series)]
    return _render(
        title=heading(report),
        profiles=[("", report)],
        overview=_shares("shares", series),
        sections=sections,
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
    return _render(
        title=f"{before.model or 'network'}: A {before.target} on {before.device}, B {after.target} on {after.device}",
        profiles=[("A", before), ("B", after)],
        overview=_shares("shares", series),
        sections=sections,
        comparison=comparison,
        data={"before": before.to_dict(), "after": after.to_dict(), "comparison": comparison.to_dict()},
    )


def _section(index: int, series: list[Series], compared: BoardComparison | None) -> dict[str, Any]:
    """What the template shows of one board, or of one in A and in B."""
    charts = []
    if index < MOST_CHARTED:
        if roofline_chart.has_points(series):
            charts.append(_roofline(f"roofline{index}", series))
        charts.append(_layers(f"layers{index}", series))
    changes = {} if compared is None else {change.step_after: change for change in compared.kernels}
    changed = [] if compared is None else compared.changed()
    rows = [
        {"kernel": kernel, "index": step, "change": changes.get(step)}
        for step, kernel in enumerate(series[-1].board.kernels)
    ]
    return {
        "series": series,
        "board": series[-1].board,
        "compared": compared,
        "charts": charts,
        "rows": rows,
        "changed": changed,
    }


def _shares(name: str, series: list[Series]) -> Markup:
    said = "; ".join(
        f"{one.label or 'time'}: "
        + ", ".join(f"{KIND_NAMES[kind]} {100 * share:.1f}%" for kind, share in shares.items())
        for one in series
        for shares in [one.board.share_by_kind]
    )
    return Markup(svg(name, partial(shares_chart.draw, series=series), shares_chart.height(series), f"{said}."))


def _roofline(name: str, series: list[Series]) -> Markup:
    said = "Binary kernels by multiply-accumulates per byte and per second; the table of kernels below has the numbers."
    return Markup(svg(name, partial(roofline_chart.draw, series=series), roofline_chart.height(series), said))


def _layers(name: str, series: list[Series]) -> Markup:
    said = "Median time of each layer in the order of execution; the table of kernels below has the numbers."
    return Markup(svg(name, partial(layers_chart.draw, series=series), layers_chart.height(series), said))


def _render(
    *,
    title: str,
    profiles: Sequence[tuple[str, ProfileReport]],
    overview: Markup,
    sections: list[dict[str, Any]],
    comparison: Comparison | None,
    data: dict[str, Any],
) -> bytes:
    page = render(
        "profile_page.html.jinja",
        title,
        data,
        profiles=profiles,
        overview=overview,
        sections=sections,
        comparison=comparison,
        machine=machine_text,
        emulated=any(board.emulated for _, report in profiles for board in report.boards),
        kind_names=KIND_NAMES,
        most_charted=MOST_CHARTED,
        most_changed=MOST_CHANGED,
    )
    return page.encode(errors="replace")


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
