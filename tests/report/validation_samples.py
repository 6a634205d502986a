"""Validations as ``validate`` makes them, of networks of any depth: passing, failing, and with whatever may be missing."""

from __future__ import annotations

from dataclasses import replace

from bnn_deploy.devices.base import BoardUse
from bnn_deploy.validation.model_level import wilson_interval
from bnn_deploy.validation.report import (
    HISTOGRAM_EDGES,
    Example,
    LevelResult,
    ModelResult,
    TensorResult,
    ValidationReport,
)
from tests.report.nasty_names import NASTY

MARGIN = 1e-6


def row(index: int, kind: str, level: int) -> TensorResult:
    """A value that passed."""
    name = f"network.{index // 8}.{index % 8}.token_mixing/{'Sign' if kind == 'bits' else 'Conv'}"
    compared = 50_176 * (1 + index % 3)
    differing, histogram = 0, None
    if kind == "bits" and level == 2:
        counts = [index % 2, 0, 0, index % 5, 3 + index % 7, 41 + index, 400 + index, 4000 + index % 40, 9000 + index]
        histogram = (*counts, compared - sum(counts))
        assert len(histogram) == len(HISTOGRAM_EDGES) + 1
        # What is on or next to the threshold flips now and then.
        differing = sum(counts[:4]) if index % 4 == 1 else 0
    return TensorResult(
        layer=name,
        tensor=f"{name}_output_0",
        kind=kind,
        step=index,
        compared=compared,
        differing=differing,
        within_margin=differing,
        near_threshold=None if histogram is None else sum(histogram[:4]),
        histogram=histogram,
        max_error=(0.0 if level == 1 else 1e-7 * (1 + index % 9)) if kind == "float" else None,
        margin=(None if level == 1 else 2e-5) if kind == "float" else None,
        fed_by=() if level == 1 else (f"{name}/BatchNorm",),
        passed=True,
        example=None,
    )


def level(number: int, depth: int) -> LevelResult:
    """A level that passed, of ``depth`` values."""
    rows = tuple(row(index, "float" if index % 5 == 4 else "bits", number) for index in range(depth))
    name, reference = (
        ("kernel integers", "exact evaluation") if number == 1 else ("teacher-forced layers", "onnxruntime")
    )
    patterns = ("data", "random", "plus", "minus") if number == 1 else ("data",)
    return LevelResult(number, name, reference, 2 if number == 1 else 8, patterns, rows, True)


def model(agreements: int, samples: int, *, labels: bool = True) -> ModelResult:
    """Level 3, asked to agree on 99% of the images."""
    top1, top5 = (0.7127, 0.9031) if labels else (None, None)
    return ModelResult(
        samples=samples,
        agreements=agreements,
        top1_agreement=agreements / samples,
        top1_agreement_interval=wilson_interval(agreements, samples),
        top5_agreement=1.0,
        bit_identical=None if labels else agreements,
        max_abs_error=3.1e-6,
        mean_abs_error=2.2e-7,
        non_finite_samples=0,
        reference_top1=top1,
        bundle_top1=top1,
        reference_top5=top5,
        bundle_top5=top5,
        min_agreement=0.99,
        passed=agreements / samples >= 0.99,
        reference_top1_interval=(0.684, 0.7399) if labels else None,
        bundle_top1_interval=(0.684, 0.7399) if labels else None,
    )


def passing(depth: int = 5) -> ValidationReport:
    """All three levels passed, with labels."""
    return ValidationReport(
        model_file="bimlp_m.onnx",
        bundle="builds/bimlp_m.rpi4",
        target="rpi4",
        device="ssh://pi@board",
        reference="onnxruntime",
        data="imagenet/val",
        levels=(level(1, depth), level(2, depth)),
        model=model(999, 1000),
        warnings=(),
        boards=(),
        zero_activations=None,
        margin=MARGIN,
        passed=True,
    )


def golden() -> ValidationReport:
    """Level 2 and 3 only, against a golden file, without labels, on two boards, with zeros counted."""
    whole = passing()
    return replace(
        whole,
        model_file="tiny.golden.npz",
        reference="golden",
        levels=whole.levels[1:],
        model=model(100, 100, labels=False),
        warnings=("The images were made from a seed, not from real data.",),
        boards=(BoardUse("pi-1", 60, 1.5), BoardUse("pi-2", 40, 1.0, "no answer in 60 s")),
        zero_activations={"compared": 1_000_000, "zeros": 2, "layers": [{"name": "sign.1", "zeros": 2, "bundle": -1}]},
    )


def failing(depth: int = 5, wrong: tuple[int, ...] = (3, 4)) -> ValidationReport:
    """Level 2 failed at the rows ``wrong``, a bit and a float of five, and level 3 with it."""
    whole = passing(depth)
    rows = list(whole.levels[1].rows)
    for index in wrong:
        before = rows[index]
        bits = before.kind == "bits"
        example = Example(
            image=3,
            position=(12, 4, 5),
            expected=1.0 if bits else 0.123456789,
            found=-1.0 if bits else float("nan"),
            distance=0.37 if bits else None,
            pattern="data",
        )
        rows[index] = replace(
            before,
            differing=before.within_margin + 137,
            passed=False,
            max_error=None if bits else float("inf"),
            example=example,
        )
    levels = (whole.levels[0], replace(whole.levels[1], rows=tuple(rows), passed=False))
    return replace(whole, levels=levels, model=model(12, 1000), passed=False)


def model_only(agreements: int = 970) -> ValidationReport:
    """Level 3 only, of which 99% are asked for."""
    result = model(agreements, 1000, labels=False)
    return replace(passing(), levels=(), model=result, margin=None, passed=result.passed)


def renamed(report: ValidationReport, names: tuple[str, ...]) -> ValidationReport:
    """``report`` with ``names`` for its first layers and for everything else that has a name."""
    at = names * 6
    levels = []
    for one in report.levels:
        rows = list(one.rows)
        for index, name in enumerate(names[: len(rows)]):
            rows[index] = replace(rows[index], layer=name, tensor=name, fed_by=(name,))
        levels.append(replace(one, rows=tuple(rows), name=at[0], reference=at[1], patterns=(at[0],)))
    return replace(
        report,
        levels=tuple(levels),
        model_file=at[1],
        bundle=at[0],
        target=at[2],
        device=at[3],
        reference=at[5],
        data=at[4],
        warnings=names,
        boards=(BoardUse(at[0], 1, 1.0, at[1]),),
    )


REPORTS = {
    "passing": passing(),
    "failing": failing(),
    "golden": golden(),
    "model only": model_only(),
    "nasty": renamed(failing(16), (*NASTY, "\ud800 lone surrogate", "\x00\x1b[31m\x7f\ufffe")),
}
