"""One HTML page about a validation: the verdict first, then each level with charts, and every value compared in tables."""

from __future__ import annotations

from math import isfinite
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from bnn_deploy.report.charts.agreement import agreement_chart, rows_of
from bnn_deploy.report.charts.differences import differences_chart
from bnn_deploy.report.charts.errors import errors_chart
from bnn_deploy.report.charts.margins import LABELS, margins_chart, totals
from bnn_deploy.report.charts.svg import svg
from bnn_deploy.report.page import render
from bnn_deploy.report.text import count_text, percent_text, power_text
from bnn_deploy.report.verdict import (
    LEVELS,
    MODEL_NAME,
    agreement,
    example_text,
    level_counts,
    near_thresholds,
    position_text,
    value_text,
    verdict,
)
from bnn_deploy.validation.report import LevelResult, TensorResult, ValidationReport

# More wrong values than this are seen in the table of all of them; more rows than this are folded away.
MOST_WRONG = 10
MOST_OPEN = 40

SHOWN = {"wrong": "wrong ones", "differing": "those that differ", "bits": "bits", "float": "floats"}


def validation_page(report: ValidationReport) -> bytes:
    """The page, in UTF-8."""
    name = PurePath(report.model_file).name or report.model_file
    return render(
        "validation_page.html.jinja",
        f"{name}: {report.target} on {report.device} against {report.reference}",
        report.to_dict(),
        report=report,
        verdict=verdict(report),
        first=report.first_failure,
        cards=_cards(report),
        levels=[_level(level, report) for level in report.levels],
        model=report.model,
        model_name=MODEL_NAME,
        model_chart=_agreement(report),
        agreement=agreement,
        explanations=LEVELS,
        shown=SHOWN,
        most_wrong=MOST_WRONG,
        most_open=MOST_OPEN,
        position=position_text,
        value=value_text,
        example=example_text,
        percent_text=percent_text,
        count=count_text,
        power=power_text,
        sortable=_sortable,
    )


def _cards(report: ValidationReport) -> list[dict[str, Any]]:
    """The three levels at a glance; ``passed`` is None for one that was not asked for."""
    cards: list[dict[str, Any]] = []
    found = {level.level: level for level in report.levels}
    for number, name in ((1, "kernels"), (2, "layers")):
        level = found.get(number)
        cards.append(
            {
                "name": f"level {number}: {name if level is None else level.name}",
                "passed": None if level is None else level.passed,
                "said": "not asked for" if level is None else level_counts(level),
            }
        )
    model = report.model
    cards.append(
        {
            "name": f"level 3: {MODEL_NAME}",
            "passed": None if model is None else model.passed,
            "said": "not asked for" if model is None else agreement(model),
        }
    )
    return cards


def _level(level: LevelResult, report: ValidationReport) -> dict[str, Any]:
    """What the template shows of one level."""
    rows = level.rows
    name = f"level{level.level}"
    charts = []
    remarks = []
    differences, errors, margins = differences_chart(rows), errors_chart(rows), margins_chart(rows, report.margin)
    if differences is not None:
        said = f"{level_counts(level)}; the table below has the numbers of each layer."
        charts.append(svg(f"{name}-differences", differences, said))
    elif rows:
        remarks.append("No value differs in any layer.")
    if errors is not None:
        said = "Largest error of each float value and its margin; the table below has the numbers."
        charts.append(svg(f"{name}-errors", errors, said))
    elif any(row.max_error is not None for row in rows):
        remarks.append("All floats are equal bit for bit.")
    near = near_thresholds(rows, report.margin)
    if margins is not None:
        counted = zip(LABELS, totals(rows), strict=True)
        said = f"{near} Values by distance: {', '.join(f'{label}: {count:,}' for label, count in counted)}."
        charts.append(svg(f"{name}-margins", margins, said))
    return {
        "result": level,
        "charts": charts,
        "remarks": remarks,
        "near": near,
        "wrong": [(number, row) for number, row in enumerate(rows, start=1) if not row.passed],
        "rows": [(number, row, _kinds(row)) for number, row in enumerate(rows, start=1)],
    }


def _kinds(row: TensorResult) -> str:
    """Words of ``SHOWN`` under which the table's filter shows the row."""
    return " ".join([row.kind] + ["differing"] * bool(row.differing) + ["wrong"] * (not row.passed))


def _agreement(report: ValidationReport) -> Markup | None:
    if report.model is None:
        return None
    said = "; ".join(f"{name}: {percent_text(part)}" for name, part, _, _ in rows_of(report.model))
    return svg("agreement", agreement_chart(report.model), f"{said}.")


def _sortable(value: float | None) -> float:
    """What the script sorts by: nothing below all numbers, NaN and infinity above them."""
    if value is None:
        return -1.0
    return value if isfinite(value) else 1e308
