"""Level 3: the logits of the whole model, image by image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from bnn_deploy.datasets import Batch, Dataset
from bnn_deploy.errors import DeviceError
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.validation.report import ModelResult

NORMAL_QUANTILE_95 = 1.959964  # two-sided 95% interval

Run = Callable[[np.ndarray], np.ndarray]
RunMany = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]


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

    def result(self, min_agreement: float = 1.0) -> ModelResult:
        """The totals."""
        agreement = self.agreements / self.samples
        return ModelResult(
            samples=self.samples,
            agreements=self.agreements,
            top1_agreement=agreement,
            top1_agreement_interval=wilson_interval(self.agreements, self.samples),
            top5_agreement=None,
            bit_identical=None,
            max_abs_error=self.max_error if self.compared_logits else None,
            mean_abs_error=self.sum_error / self.compared_logits if self.compared_logits else None,
            non_finite_samples=self.non_finite_samples,
            reference_top1=self.reference_hits / self.labelled if self.labelled else None,
            bundle_top1=self.bundle_hits / self.labelled if self.labelled else None,
            reference_top5=None,
            bundle_top5=None,
            min_agreement=min_agreement,
            passed=agreement >= min_agreement,
        )

    def warnings(self) -> list[str]:
        """One sentence each, what limits this result."""
        if not self.non_finite_samples:
            return []
        return [f"{self.non_finite_samples} samples have NaN or infinite logits and count as disagreements."]


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
