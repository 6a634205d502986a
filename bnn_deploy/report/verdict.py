"""What a validation found, in sentences for people who have not read its documentation. Plain text, not escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from bnn_deploy.report.text import count_text, percent_text, power_text, short
from bnn_deploy.validation.report import Example, LevelResult, ModelResult, TensorResult, ValidationReport

# Characters of one name within a sentence.
NAME_WIDTH = 120

LEVELS = {
    1: "Each kernel gets the same values as an exact calculation of the compiled network, and must give the same results.",
    2: "Each layer gets the reference's own inputs, so that an earlier mistake cannot cause, nor hide, a later one.",
    3: "The whole network answers about each image by itself, and must name the reference's class.",
}
MODEL_NAME = "whole model"


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        passed: as in the report.
        sentence: what was compared, where, and with which outcome.
        next_step: what the reader should do now; "" if all is well.
    """

    passed: bool
    sentence: str
    next_step: str


def verdict(report: ValidationReport) -> Verdict:
    """The outcome of the whole validation."""
    bundle = f"{short(PurePath(report.bundle).name or report.bundle, NAME_WIDTH)} ({report.target}) on {report.device}"
    model = short(PurePath(report.model_file).name or report.model_file, NAME_WIDTH)
    reference = f"{model} in {short(report.reference, NAME_WIDTH)}"
    if report.passed:
        return Verdict(True, f"Passed: {bundle} computes what {reference} computes: {_done(report)}.", "")
    failure = report.first_failure
    if failure is not None:
        level, row = failure
        sentence = f"Failed: {bundle} does not compute what {reference} computes: {wrong_layer(level, row)}"
        return Verdict(False, sentence, _next_step(report, level, row))
    if report.model is not None and not report.model.passed:
        inside = "every layer compared is right, but " if report.levels else ""
        asked = percent_text(report.model.min_agreement)
        return Verdict(
            False,
            f"Failed: {bundle} answers differently from {reference}: {inside}only {agreement(report.model)}, "
            f"where at least {asked} is asked for.",
            _next_step_of_model(report),
        )
    return Verdict(False, f"Failed: {bundle} was not shown to compute what {reference} computes.", "")


def wrong_layer(level: LevelResult, row: TensorResult) -> str:
    """The first wrong layer with an example, in one sentence."""
    what = "bits" if row.kind == "bits" else "floats"
    unexplained = row.differing - row.within_margin
    rounding = f", {count_text(row.within_margin)} more by rounding" if row.within_margin else ""
    shown = "" if row.example is None else f"; {example_text(row.example, row.kind, level.reference)}"
    return (
        f"the first wrong layer is {short(row.layer, NAME_WIDTH)} (level {level.level}, value "
        f"{short(row.tensor, NAME_WIDTH)}): {count_text(unexplained)} of {count_text(row.compared)} {what} are "
        f"wrong{rounding}{shown}."
    )


def example_text(example: Example, kind: str, reference: str) -> str:
    """Such as "image 3 at channel 1, row 2, column 0: onnxruntime has +1, the bundle -1"."""
    distance = ""
    if example.distance is not None:
        of = "the reference is {} from its threshold" if kind == "bits" else "they are {} apart"
        distance = f" ({of.format(f'{example.distance:.3g}')})"
    pattern = "" if example.pattern == "data" else f" with forced inputs ({short(example.pattern, NAME_WIDTH)})"
    return (
        f"image {example.image} at {position_text(example.position)}{pattern}: {short(reference, NAME_WIDTH)} has "
        f"{value_text(example.expected, kind)}, the bundle {value_text(example.found, kind)}{distance}"
    )


def position_text(position: tuple[int, ...]) -> str:
    """A place in an ONNX value, without the image."""
    if len(position) == 3:
        return ", ".join(f"{name} {index}" for name, index in zip(("channel", "row", "column"), position, strict=True))
    return f"index {', '.join(map(str, position))}" if position else "its only value"


def value_text(value: float, kind: str) -> str:
    """A bit with its sign, a float with all digits that make it different from its neighbours."""
    return f"{value:+g}" if kind == "bits" and value else f"{value:.9g}".replace("nan", "NaN")


def agreement(model: ModelResult) -> str:
    """Such as "999 of 1,000 images (99.9%; 95% interval 99.44% to 99.98%) get the same class"."""
    low, high = model.top1_agreement_interval
    return (
        f"{count_text(model.agreements)} of {count_text(model.samples)} images ({percent_text(model.top1_agreement)}; "
        f"95% interval {percent_text(low)} to {percent_text(high)}) get the same class"
    )


def level_counts(level: LevelResult) -> str:
    """What one level compared and found, in a few words."""
    compared = sum(row.compared for row in level.rows)
    differing = sum(row.differing for row in level.rows)
    explained = sum(row.within_margin for row in level.rows)
    wrong = sum(not row.passed for row in level.rows)
    found = "none differs"
    if differing:
        found = f"{count_text(differing)} differ, {count_text(explained)} of them by rounding"
    layers = f"{wrong} of {len(level.rows)} layers wrong" if wrong else f"{len(level.rows)} layers"
    return f"{layers}, {count_text(compared)} values compared, {found}"


def near_thresholds(rows: Sequence[TensorResult], margin: float | None) -> str:
    """How many values rounding could flip; "" if nobody counted."""
    counted = [row for row in rows if row.near_threshold is not None]
    if not counted:
        return ""
    near = sum(row.near_threshold or 0 for row in counted)
    compared = sum(row.compared for row in counted)
    of = "the margin" if margin is None else f"{power_text(margin)} of their layer's largest value"
    return (
        f"{count_text(near)} of {count_text(compared)} activations lie so close to a threshold (within {of}) that float32 "
        "sums in another order can flip them."
    )


def _done(report: ValidationReport) -> str:
    parts = [f"level {level.level}, {level_counts(level)}" for level in report.levels]
    if report.model is not None:
        parts.append(agreement(report.model))
    return "; ".join(parts)


def _next_step(report: ValidationReport, level: LevelResult, row: TensorResult) -> str:
    kernels = next((one for one in report.levels if one.level == 1), None)
    if level.level == 1:
        return (
            "The device computes something else than the compiler meant, in this kernel and maybe in later ones: validate "
            "with --device local or qemu to see whether the device matters, and report it with this file."
        )
    fed_by = f" It is made by: {short(', '.join(row.fed_by), 300)}." if row.fed_by else ""
    if kernels is None:
        return f"Add --level 1, which tells whether the kernel is wrong or what the compiler made of the layer.{fed_by}"
    return (
        "Its kernel does what the compiler meant, so the compiler read this layer of the model, or its constants, "
        f"differently from the reference: check that the bundle was compiled from this very file, look at the node, and "
        f"report it with this file.{fed_by}"
    )


def _next_step_of_model(report: ValidationReport) -> str:
    if {level.level for level in report.levels} != {1, 2}:
        return "Add --level 1 and --level 2, which name the first wrong layer if there is one."
    return (
        "A bit that rounding flips can change an answer that was close anyway. --deterministic-reference compares with the "
        "bundle's own order of sums, where nothing may differ; if that passes, set --min-agreement to what you accept."
    )
