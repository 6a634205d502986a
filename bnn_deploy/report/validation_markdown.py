"""A validation as a comment on a pull request: GitHub's Markdown, short, with what failed folded away."""

from __future__ import annotations

import re

from bnn_deploy.report.text import count_text, percent_text, short
from bnn_deploy.report.verdict import (
    MODEL_NAME,
    example_text,
    level_counts,
    near_thresholds,
    verdict,
)
from bnn_deploy.validation.report import LevelResult, TensorResult, ValidationReport

# Together they keep the longest comment, with every character escaped, under 60,000 characters; GitHub takes 65,536.
MOST_ROWS = 10
MOST_WARNINGS = 5
SENTENCE_WIDTH = 1500
NAME_WIDTH = 80

# What may mean something in GitHub's Markdown or HTML: "_" not within a word, ":" in addresses and emoji, "." after "www".
SPECIAL = re.compile(
    r"[!-~](?<![\w ,\-/=.;:()?%'\"+])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?! )|(?<=www)\.", re.IGNORECASE
)
MARKS = {True: "✅", False: "❌"}


def validation_markdown(report: ValidationReport) -> str:
    """The comment, ending in a line break; names in it cannot mention people, link, or end what they stand in."""
    found = verdict(report)
    lines = [f"### {MARKS[found.passed]} bnn-deploy validate: {'passed' if found.passed else 'failed'}", ""]
    lines += [escaped(found.sentence, SENTENCE_WIDTH), ""]
    if found.next_step:
        lines += [f"**What to do:** {escaped(found.next_step, SENTENCE_WIDTH)}", ""]
    lines += ["| level | compared with | result |", "|---|---|---|"]
    lines += [_level(level) for level in report.levels]
    lines += [_model(report)] if report.model is not None else []
    lines.append("")
    for level in report.levels:
        if level.level == 2 and (said := near_thresholds(level.rows, report.margin)):
            lines += [escaped(said, SENTENCE_WIDTH), ""]
    lines += [f"> ⚠ {escaped(warning, SENTENCE_WIDTH)}\n" for warning in report.warnings[:MOST_WARNINGS]]
    wrong = [(level, row) for level in report.levels for row in level.rows if not row.passed]
    if wrong:
        # Below the verdict's own sentence, which names the first of the lowest level.
        lines += ["<details><summary>" + _summary(len(wrong)) + "</summary>", ""]
        lines += [
            "| level | layer | differing | by rounding | compared | example |",
            "|---|---|--:|--:|--:|---|",
        ]
        lines += [_row(level, row) for level, row in wrong[:MOST_ROWS]]
        lines += ["", "</details>", ""]
    lines.append(f"Images: {code(report.data)}. Bundle: {code(report.bundle)}.")
    return "\n".join(lines).encode(errors="replace").decode() + "\n"


def escaped(text: str, width: int) -> str:
    """Plain ``text``, cut to ``width`` characters, in which GitHub finds nothing to interpret.

    Not at the start of a line, where also "1." and "-" mean something. Text of which most must be escaped is cut further, so
    that nothing is longer than twice ``width``.
    """
    found = SPECIAL.sub(_reference, short(text, width))
    return found if len(found) <= 2 * width else escaped(text, width // 2)


def code(text: str, width: int = NAME_WIDTH) -> str:
    """A name in a fixed-width font; unlike in backticks, any character may be in it."""
    return f"<code>{escaped(text, width)}</code>"


def _reference(found: re.Match[str]) -> str:
    character = found[0]
    # GitHub looks for people and issues after it has read the references.
    apart = "<!-- -->" if character in "@#" else ""
    return f"&#{ord(character)};{apart}"


def _summary(wrong: int) -> str:
    shown = f"the first {MOST_ROWS} of {wrong}" if wrong > MOST_ROWS else f"{wrong}"
    return f"Wrong layers: {shown}"


def _level(level: LevelResult) -> str:
    name = f"{level.level}: {escaped(level.name, NAME_WIDTH)}"
    return f"| {MARKS[level.passed]} {name} | {escaped(level.reference, NAME_WIDTH)} | {escaped(level_counts(level), 200)} |"


def _model(report: ValidationReport) -> str:
    model = report.model
    assert model is not None
    parts = [f"{count_text(model.agreements)} of {count_text(model.samples)} images agree"]
    parts[0] += f" ({percent_text(model.top1_agreement)}, at least {percent_text(model.min_agreement)} asked for)"
    if model.reference_top1 is not None and model.bundle_top1 is not None:
        accuracies = f"{percent_text(model.reference_top1)} and {percent_text(model.bundle_top1)}"
        parts.append(f"top-1 accuracy of reference and bundle {accuracies}")
    if model.max_abs_error is not None:
        parts.append(f"largest logit error {model.max_abs_error:.3g}")
    name = f"{MARKS[model.passed]} 3: {MODEL_NAME}"
    return f"| {name} | {escaped(report.reference, NAME_WIDTH)} | {escaped('; '.join(parts), 300)} |"


def _row(level: LevelResult, row: TensorResult) -> str:
    example = "" if row.example is None else escaped(example_text(row.example, row.kind, level.reference), 400)
    cells = (
        str(level.level),
        code(row.layer),
        count_text(row.differing),
        count_text(row.within_margin),
        count_text(row.compared),
        example,
    )
    return f"| {' | '.join(cells)} |"
