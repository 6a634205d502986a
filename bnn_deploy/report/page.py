"""One HTML page about a profile, or about two and what changed: everything in one file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bnn_deploy.devices.system_state import SystemState
from bnn_deploy.profiling.comparison import BoardComparison, Comparison
from bnn_deploy.profiling.model import ProfileReport
from bnn_deploy.report import layers_chart, roofline_chart, shares_chart
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
    return Markup(svg(name, shares_chart.draw, shares_chart.height(series), series, f"{said}."))


def _roofline(name: str, series: list[Series]) -> Markup:
    said = "Binary kernels by multiply-accumulates per byte and per second; the table of kernels below has the numbers."
    return Markup(svg(name, roofline_chart.draw, roofline_chart.height(series), series, said))


def _layers(name: str, series: list[Series]) -> Markup:
    said = "Median time of each layer in the order of execution; the table of kernels below has the numbers."
    return Markup(svg(name, layers_chart.draw, layers_chart.height(series), series, said))


def _render(
    *,
    title: str,
    profiles: Sequence[tuple[str, ProfileReport]],
    overview: Markup,
    sections: list[dict[str, Any]],
    comparison: Comparison | None,
    data: dict[str, Any],
) -> bytes:
    folder = files("bnn_deploy.report")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["digits"] = lambda value: f"{value:.4g}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["bytes"] = _bytes
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))
    page = template.render(
        title=title,
        profiles=profiles,
        overview=overview,
        sections=sections,
        comparison=comparison,
        machine=machine_text,
        emulated=any(board.emulated for _, report in profiles for board in report.boards),
        kind_names=KIND_NAMES,
        most_charted=MOST_CHARTED,
        most_changed=MOST_CHANGED,
        style=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=embedded_json(data),
    )
    return page.encode(errors="replace")


def embedded_json(data: dict[str, Any]) -> Markup:
    """JSON that can stand in a ``<script>`` element: nothing in it ends the element or starts a comment."""
    text = json.dumps(data, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


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


def _bytes(count: float | None) -> str:
    if count is None:
        return "unknown"
    from_unit = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit, size in from_unit.items() if count >= size), "B")
    return f"{count / from_unit.get(unit, 1):.4g} {unit}"
