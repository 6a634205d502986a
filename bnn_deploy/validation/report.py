"""What ``validate`` found: one row per value compared, one result per level, and the verdict on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

from bnn_deploy.references import layer_values

if TYPE_CHECKING:
    from bnn_deploy.devices.base import BoardUse

SCHEMA = "bnn-deploy/validation/1"

# Lower edges of the histogram of |x - threshold| / scale: the first count is that of values exactly on their threshold,
# count i those in (HISTOGRAM_EDGES[i - 1], HISTOGRAM_EDGES[i]], the last those beyond the last edge.
HISTOGRAM_EDGES = layer_values.HISTOGRAM_EDGES[:-1]


@dataclass(frozen=True)
class Example:
    """One value that differs.

    Attributes:
        image: number of the image in the data.
        position: where in the ONNX value, without the image: (channel, row, column) of feature maps.
        expected: the reference's value; bits as -1, 0, +1.
        found: the bundle's.
        distance: how far the reference's value was from its threshold (or the float's difference); None if unknown.
        pattern: what was forced before the kernel, see ``patterns``; "data" for the network's own values.
    """

    image: int
    position: tuple[int, ...]
    expected: float
    found: float
    distance: float | None
    pattern: str


@dataclass(frozen=True)
class TensorResult:
    """One value of the network (an output of an ONNX node), over all images and patterns.

    Attributes:
        layer: name of the ONNX node.
        tensor: name of the ONNX value.
        kind: "bits" or "float".
        step: number of the kernel call that computes it; -1 for what is no kernel's.
        compared: values compared.
        differing: values that are not equal (bits), or not equal within what the level allows (floats).
        within_margin: of these, those that rounding explains: their reference lies within the margin of its threshold.
        near_threshold: values that the reference has within the margin of their threshold, differing or not.
        histogram: counts of |x - threshold| / scale, see ``HISTOGRAM_EDGES``.
        max_error: largest difference of two floats.
        margin: largest difference that rounding explains, in units of the value (absolute).
        fed_by: names of the nodes that make this value of those compared before it.
        passed: no difference that rounding does not explain.
        example: the first one of these.
    """

    layer: str
    tensor: str
    kind: str
    step: int
    compared: int
    differing: int
    within_margin: int
    near_threshold: int | None
    histogram: tuple[int, ...] | None
    max_error: float | None
    margin: float | None
    fed_by: tuple[str, ...]
    passed: bool
    example: Example | None


@dataclass(frozen=True)
class LevelResult:
    """Level 1 or 2: values inside the network.

    Attributes:
        level: 1 (kernels) or 2 (layers).
        name: what was compared, in words.
        reference: with what.
        images: images run, of every pattern.
        patterns: what was forced, see ``patterns``.
        rows: in execution order.
        passed: every row passed.
    """

    level: int
    name: str
    reference: str
    images: int
    patterns: tuple[str, ...]
    rows: tuple[TensorResult, ...]
    passed: bool

    @property
    def first_failure(self) -> TensorResult | None:
        """The first wrong value in execution order."""
        return next((row for row in self.rows if not row.passed), None)


@dataclass(frozen=True)
class ModelResult:
    """Level 3: the logits of the whole model.

    Attributes:
        samples: images compared.
        agreements: samples for which bundle and reference name the same class; of equal logits the first counts, and a
            sample with a NaN or infinite logit on either side never agrees.
        top1_agreement: part of the samples that agree.
        top1_agreement_interval: its 95% confidence interval (Wilson) for more data like this.
        top5_agreement: part of the samples whose reference class is among the bundle's five largest logits.
        bit_identical: samples whose logits are equal bit for bit; None if nobody looked.
        max_abs_error: largest difference of two logits, over samples whose logits are all finite; None if none is.
        mean_abs_error: mean difference over the same logits; None if there are none.
        non_finite_samples: samples with a NaN or infinite logit on either side.
        reference_top1, bundle_top1, reference_top5, bundle_top5: accuracies, if the data has labels.
        reference_top1_interval, bundle_top1_interval: 95% confidence intervals (Wilson) of the first two.
        min_agreement: the top-1 agreement asked for.
        passed: it was reached.
    """

    samples: int
    agreements: int
    top1_agreement: float
    top1_agreement_interval: tuple[float, float]
    top5_agreement: float | None
    bit_identical: int | None
    max_abs_error: float | None
    mean_abs_error: float | None
    non_finite_samples: int
    reference_top1: float | None
    bundle_top1: float | None
    reference_top5: float | None
    bundle_top5: float | None
    min_agreement: float
    passed: bool
    reference_top1_interval: tuple[float, float] | None = None
    bundle_top1_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ValidationReport:
    """Result of ``validate``.

    Attributes:
        model_file: the ONNX or golden file compared with.
        bundle: the bundle's folder.
        target, device: what it was compiled for, and where it ran.
        reference: what its results were compared with.
        data: the images.
        levels: results of the levels 1 and 2 that were asked for.
        model: result of level 3, None if it was not asked for.
        warnings: one sentence each, what limits this result.
        boards: what each board did, for a device of several.
        zero_activations: {"compared", "zeros", "layers": [{"name", "zeros", "bundle"}]}: how many of the values that the
            reference binarised were exactly on their threshold, over all signs that the file makes 0 there and the bundle
            -1 or +1; None if there is no such sign, or nobody counted.
        margin: relative difference that rounding may make, None if no level that needs it was asked for.
        passed: every level passed.
    """

    model_file: str
    bundle: str
    target: str
    device: str
    reference: str
    data: str
    levels: tuple[LevelResult, ...]
    model: ModelResult | None
    warnings: tuple[str, ...]
    boards: tuple[BoardUse, ...]
    zero_activations: dict[str, Any] | None
    margin: float | None
    passed: bool

    @property
    def first_failure(self) -> tuple[LevelResult, TensorResult] | None:
        """The first wrong value of the lowest level that has one: kernels are the sharper instrument."""
        found = ((level, level.first_failure) for level in sorted(self.levels, key=lambda level: level.level))
        return next(((level, row) for level, row in found if row is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON (docs/schemas/validation.schema.json); NaN and infinities are strings there."""
        content = _plain({"schema": SCHEMA, **asdict(self)})
        assert isinstance(content, dict)
        return content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
