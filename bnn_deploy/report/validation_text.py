"""A validation for a terminal: the verdict, what differs, and what was compared."""

from __future__ import annotations

from typing import Any

from bnn_deploy.devices.base import BoardUse
from bnn_deploy.report.text import count_text, short, table
from bnn_deploy.report.verdict import level_counts, near_thresholds, position_text, value_text, verdict
from bnn_deploy.validation.report import ModelResult, TensorResult, ValidationReport

# Names in one line of text; the JSON has all.
MOST_LAYERS = 5
NAME_WIDTH = 60


def validation_text(report: ValidationReport, all_layers: bool) -> str:
    """Lines without the last line break.

    Args:
        report: what was found.
        all_layers: list the values that are right as well.
    """
    found = verdict(report)
    lines = [found.sentence]
    lines += [f"What to do: {found.next_step}"] if found.next_step else []
    lines += ["", f"{report.target} on {report.device} against {report.reference}, data: {report.data}"]
    for level in report.levels:
        mark = "passed" if level.passed else "FAILED"
        patterns = f" ({', '.join(level.patterns)})" if level.level == 1 else ""
        images = "1 image" if level.images == 1 else f"{level.images} images"
        lines.append(
            f"level {level.level} {mark}   {level.name} against {level.reference}, {images}{patterns}: {level_counts(level)}"
        )
        rows = [row for row in level.rows if all_layers or not row.passed]
        lines += [_rows(rows), ""] if rows else []
        if level.level == 2 and (said := near_thresholds(level.rows, report.margin)):
            lines.append(said)
    if report.model is not None:
        lines += _model(report.model)
    lines += [f"board            {_board(use)}" for use in report.boards]
    if report.zero_activations is not None:
        lines.append(f"sign(0)          {_zeros(report.zero_activations)}")
    return "\n".join(lines)


def _rows(rows: list[TensorResult]) -> str:
    cells = []
    for row in rows:
        error = "-" if row.max_error is None else f"{row.max_error:.3g}"
        margin = "-" if row.margin is None else f"{row.margin:.3g}"
        example = ""
        if row.example is not None:
            found = row.example
            example = (
                f"image {found.image}, {position_text(found.position)}: {value_text(found.expected, row.kind)} became "
                f"{value_text(found.found, row.kind)} ({found.pattern})"
            )
        counts = [count_text(number) for number in (row.compared, row.differing, row.within_margin)]
        name = short(row.layer, NAME_WIDTH)
        cells.append([name, short(row.tensor, NAME_WIDTH), row.kind, *counts, error, margin, example])
    counts_header = ("compared", "differing", "by rounding")
    header = ("layer", "value", "kind", *counts_header, "max error", "margin", "first difference")
    return table(header, cells, left=3)


def _model(model: ModelResult) -> list[str]:
    low, high = model.top1_agreement_interval
    lines = [
        f"top-1 agreement  {model.top1_agreement:.4%} ({model.agreements} of {model.samples}; 95% interval "
        f"{low:.2%} to {high:.2%})",
    ]
    if model.top5_agreement is not None:
        lines.append(f"top-5 agreement  {model.top5_agreement:.4%} (the reference's class among the bundle's five)")
    if model.max_abs_error is not None and model.mean_abs_error is not None:
        equal = (
            ""
            if model.bit_identical is None
            else f"; all bits equal for {model.bit_identical} of {model.samples} images"
        )
        lines.append(f"logit error      max {model.max_abs_error:.3g}, mean {model.mean_abs_error:.3g}{equal}")
    if model.reference_top1 is not None and model.bundle_top1 is not None:
        lines.append(f"top-1 accuracy   reference {model.reference_top1:.2%}, bundle {model.bundle_top1:.2%}")
    if model.reference_top5 is not None and model.bundle_top5 is not None:
        lines.append(f"top-5 accuracy   reference {model.reference_top5:.2%}, bundle {model.bundle_top5:.2%}")
    mark = "passed" if model.passed else "FAILED"
    lines.append(f"level 3 {mark}   at least {model.min_agreement:.4%} agreement was asked for")
    return lines


def _board(use: BoardUse) -> str:
    text = f"{use.board}: {use.images} images in {use.seconds:.1f} s"
    return f"{text}, lost: {use.lost}" if use.lost else text


def _zeros(counted: dict[str, Any]) -> str:
    """Such as "3 of 10.2M binarised values were exactly at the threshold (the file says 0, the bundle -1): stage.3.sign 3"."""
    met = sorted((layer for layer in counted["layers"] if layer["zeros"]), key=lambda layer: -layer["zeros"])
    bundle = "/".join(f"{value:+d}" for value in sorted({layer["bundle"] for layer in counted["layers"]}))
    text = (
        f"{counted['zeros'] or 'none'} of {count_text(counted['compared'])} binarised values "
        f"{'was' if counted['zeros'] < 2 else 'were'} exactly at the threshold (the file says 0, the bundle {bundle})"
    )
    names = [f"{layer['name']} {layer['zeros']}" for layer in met[:MOST_LAYERS]]
    names += [f"and {len(met) - MOST_LAYERS} more layers"] * (len(met) > MOST_LAYERS)
    return f"{text}: {', '.join(names)}" if names else text
