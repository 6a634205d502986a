"""Does a bundle compute what the model computes: top-1 agreement and logit error against PyTorch or onnxruntime."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import lcm, prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_deploy.datasets import Batch, Dataset, open_dataset
from bnn_deploy.errors import BundleError, DeviceError, InputError
from bnn_deploy.import_report import ActivationReport
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.runtime.arrays import batch_size

if TYPE_CHECKING:
    from bnn_deploy.bundle import Bundle
    from bnn_deploy.devices.base import BoardUse, Device

NORMAL_QUANTILE_95 = 1.959964  # two-sided 95% interval

Run = Callable[[np.ndarray], np.ndarray]
RunMany = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]


@dataclass(frozen=True)
class ValidationReport:
    """Result of ``validate``.

    Attributes:
        top1_agreement: part of the samples for which bundle and reference name the same class; of equal logits the
            first counts, and a sample with a NaN or infinite logit on either side never agrees.
        top1_agreement_interval: its 95% confidence interval (Wilson) for more data like this.
        agreements: number of such samples.
        samples: images compared.
        max_abs_error: largest difference of two logits, over samples whose logits are all finite; None if none is.
        mean_abs_error: mean difference over the same logits; None if there are none.
        non_finite_samples: samples with a NaN or infinite logit on either side.
        reference_top1: accuracy of the reference, if the data has labels.
        bundle_top1: accuracy of the bundle, if the data has labels.
        reference, target, device, data: what was compared, where, and on what.
        warnings: one sentence each, what limits this result.
        zero_activations: {"compared", "zeros", "layers": [{"name", "zeros", "bundle"}]}: how many of the values that the
            reference binarised were exactly on their threshold, over all signs that the file makes 0 there and the bundle
            -1 or +1; None if there is no such sign, or PyTorch is the reference.
        boards: what each board did, for a device of several.
    """

    top1_agreement: float
    top1_agreement_interval: tuple[float, float]
    agreements: int
    samples: int
    max_abs_error: float | None
    mean_abs_error: float | None
    non_finite_samples: int
    reference_top1: float | None
    bundle_top1: float | None
    reference: str
    target: str
    device: str
    data: str
    warnings: tuple[str, ...] = ()
    zero_activations: dict[str, Any] | None = None
    boards: tuple[BoardUse, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def validate(
    onnx_path: Path,
    bundle: Bundle,
    *,
    reference: str = "onnxruntime",
    data: Path | None = None,
    samples: int | None = None,
    device: Device | None = None,
    threads: int = 1,
    weights: Path | None = None,
    progress: ReportProgress = quiet,
) -> ValidationReport:
    """Run the bundle and a reference on the same images and compare their logits.

    Args:
        onnx_path: the exported model that the bundle was compiled from.
        bundle: what to check.
        reference: "onnxruntime" runs the ONNX file; "torch" builds the PyTorch model that its metadata describe.
        data: see ``datasets.open_dataset``; None regenerates the calibration inputs that the file's metadata describe,
            whose activations keep a margin from every threshold, or takes seeded normal inputs if there are none.
        samples: how many of the images, all if None.
        device: where the bundle runs; None is this machine.
        threads: threads of one inference of the bundle.
        weights: checkpoint for the reference "torch" if the file was exported from one.
        progress: called with a message after every batch.

    Raises:
        InputError: data that does not fit, or too few samples.
        ModelFileError: the ONNX file or the checkpoint cannot be used.
        BundleError: the bundle does not fit the model or the device.
    """
    from bnn_deploy.devices import get_device
    from bnn_deploy.references import fill_batch, open_reference

    chosen = device or get_device("local")
    progress(f"{onnx_path}: preparing the reference")
    strangers = _check_origin(onnx_path, bundle)
    activations = [] if strangers or reference != "onnxruntime" else _activations(onnx_path, bundle)
    model = open_reference(reference, onnx_path, weights, activations)
    image_shape, classes = _common_shapes(model.input_shape, model.classes, bundle, onnx_path)
    dataset = open_dataset(data, image_shape, classes) if data is not None else model.default_dataset(samples)
    count = dataset.samples if samples is None else samples
    if count > dataset.samples:
        raise InputError(
            f"{dataset.source}: holds {dataset.samples} images, fewer than --samples {count}; ask for fewer."
        )
    warnings = [dataset.note] if dataset.note else []
    warnings += strangers

    # Whole batches of both, so that only the last ones have to be filled up.
    size = batch_size(image_shape, lcm(model.batch, bundle.batch))
    with chosen.open(bundle, threads, progress) as session:

        def run_bundle(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            return session.run_many(fill_batch(images, bundle.batch) for images in batches)

        comparison = compare(dataset, count, model.run, run_bundle, size, progress)
        boards = session.boards()
    report = comparison.report(
        reference=reference, target=bundle.target, device=chosen.name, data=dataset.source, warnings=warnings
    )
    return replace(report, zero_activations=None if model.zeros is None else model.zeros.to_dict(), boards=boards)


@dataclass
class Comparison:
    """Running totals over the samples seen so far."""

    samples: int = 0
    agreements: int = 0
    non_finite_samples: int = 0
    compared_logits: int = 0
    max_error: float = 0.0
    sum_error: float = 0.0
    labelled: int = 0
    reference_hits: int = 0
    bundle_hits: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None:
        """Add logits (n, classes) of the reference and the bundle, and labels (n,) if there are any."""
        finite = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
        expected_class, found_class = expected.argmax(axis=1), found.argmax(axis=1)
        self.samples += len(expected)
        self.non_finite_samples += int((~finite).sum())
        self.agreements += int((finite & (expected_class == found_class)).sum())
        if finite.any():
            error = np.abs(expected[finite].astype(np.float64) - found[finite].astype(np.float64))
            self.compared_logits += error.size
            self.max_error = max(self.max_error, float(error.max()))
            self.sum_error += float(error.sum())
        if labels is not None:
            self.labelled += len(labels)
            # argmax takes a NaN for the largest value: such an answer is no hit.
            self.reference_hits += int(((expected_class == labels) & np.isfinite(expected).all(axis=1)).sum())
            self.bundle_hits += int(((found_class == labels) & np.isfinite(found).all(axis=1)).sum())

    def report(self, *, reference: str, target: str, device: str, data: str, warnings: list[str]) -> ValidationReport:
        """The totals as a report."""
        if self.non_finite_samples:
            warnings = [
                *warnings,
                f"{self.non_finite_samples} samples have NaN or infinite logits and count as disagreements.",
            ]
        return ValidationReport(
            top1_agreement=self.agreements / self.samples,
            top1_agreement_interval=wilson_interval(self.agreements, self.samples),
            agreements=self.agreements,
            samples=self.samples,
            max_abs_error=self.max_error if self.compared_logits else None,
            mean_abs_error=self.sum_error / self.compared_logits if self.compared_logits else None,
            non_finite_samples=self.non_finite_samples,
            reference_top1=self.reference_hits / self.labelled if self.labelled else None,
            bundle_top1=self.bundle_hits / self.labelled if self.labelled else None,
            reference=reference,
            target=target,
            device=device,
            data=data,
            warnings=tuple(warnings),
        )


def compare(
    dataset: Dataset, samples: int, reference: Run, bundle: RunMany, batch: int, progress: ReportProgress = quiet
) -> Comparison:
    """Run both on the first ``samples`` images, ``batch`` at a time; memory does not grow with ``samples``.

    Args:
        bundle: takes the batches of images and gives their outputs, perhaps of more images than asked for, in that order;
            it may take some batches ahead.
    """
    comparison = Comparison()
    waiting: deque[Batch] = deque()

    def batches() -> Iterator[np.ndarray]:
        for images, labels in dataset.batches(batch, samples):
            waiting.append((images, labels))
            yield images

    # The bundle first: a wrong device or batch then shows before the slow reference has run.
    for found in bundle(batches()):
        images, labels = waiting.popleft()
        comparison.add(_logits(reference(images)), _logits(found[: len(images)]), labels)
        progress(f"compared {comparison.samples} of {samples} images")
    if comparison.samples != samples:
        raise DeviceError(f"The device gave results of {comparison.samples} images, expected {samples}; run it again.")
    return comparison


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927): inside [0, 1], and honest about 100% of few samples."""
    z = NORMAL_QUANTILE_95
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _logits(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1)


def _common_shapes(
    input_shape: tuple[int, ...], classes: int, bundle: Bundle, onnx_path: Path
) -> tuple[tuple[int, ...], int]:
    """Shape of one image and number of logits, after checking that model and bundle agree on them."""
    if len(bundle.inputs) != 1 or len(bundle.outputs) != 1:
        raise InputError(
            f"{bundle.path}: has {len(bundle.inputs)} inputs and {len(bundle.outputs)} outputs; "
            "validate compares models with one image in and one row of logits out."
        )
    bundle_shape, bundle_classes = bundle.inputs[0].shape[1:], prod(bundle.outputs[0].shape[1:])
    if input_shape != bundle_shape or classes != bundle_classes:
        raise InputError(
            f"{onnx_path}: takes images {input_shape} to {classes} logits, but the bundle {bundle.path} takes "
            f"{bundle_shape} to {bundle_classes}; compile it again, or give the file that the bundle came from."
        )
    return input_shape, classes


def _check_origin(onnx_path: Path, bundle: Bundle) -> list[str]:
    recorded = bundle.manifest.get("model", {}).get("onnx_sha256")
    if recorded is None:
        return []
    try:
        content = onnx_path.read_bytes()
    except OSError:
        return []  # which the reference, opened next, explains
    if hashlib.sha256(content).hexdigest() == recorded:
        return []
    return [f"{bundle.path} was compiled from another file than {onnx_path} (their SHA-256 differ); compile it again."]


def _activations(onnx_path: Path, bundle: Bundle) -> list[ActivationReport]:
    """What the compiler made of the signs of the file that ``bundle`` was compiled from."""
    from bnn_deploy.foreign_model import ZERO_KEY, open_model

    recorded = bundle.manifest.get("import")
    if not recorded:
        changed = ZERO_KEY in bundle.manifest.get("model", {})
        return open_model(onnx_path).report.activations if changed else []
    try:
        activations = [ActivationReport(**row) for row in recorded["activations"]]
        known = all(_is_sensible(row) for row in activations)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise BundleError(f"{bundle.path}: its manifest says nothing sensible of the import; compile the model again.")
    return activations


def _is_sensible(row: ActivationReport) -> bool:
    names = isinstance(row.name, str) and isinstance(row.source, str)
    numbers = isinstance(row.threshold, int | float | str) and {row.graph_zero, row.compiled_zero} <= {-1, 0, 1}
    return names and numbers
