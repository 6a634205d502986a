"""Level 3: the logits of the whole model, image by image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np

from bnn_deploy.checked_fields import Fields, Unfit, text, whole
from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.errors import DeviceError
from bnn_deploy.progress import Pace, ReportProgress, quiet
from bnn_deploy.validation.exact_sum import ExactSum
from bnn_deploy.validation.report import ModelResult
from bnn_deploy.validation.resume import RunState, stoppable

NORMAL_QUANTILE_95 = 1.959964  # two-sided 95% interval
TOP = 5

Run = Callable[[np.ndarray], np.ndarray]
RunMany = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]

_COUNTS = (
    "samples",
    "agreements",
    "top5_agreements",
    "bit_identical",
    "non_finite_samples",
    "compared_logits",
    "labelled",
    "reference_hits",
    "bundle_hits",
    "reference_top5_hits",
    "bundle_top5_hits",
)


@dataclass
class Comparison:
    """Running totals over the samples seen so far; the same whatever batches they come in.

    Attributes:
        classes: number of logits.
        finished_before: nothing was run, since a saved state held the totals of the whole run.
    """

    samples: int = 0
    agreements: int = 0
    top5_agreements: int = 0
    bit_identical: int = 0
    non_finite_samples: int = 0
    compared_logits: int = 0
    labelled: int = 0
    reference_hits: int = 0
    bundle_hits: int = 0
    reference_top5_hits: int = 0
    bundle_top5_hits: int = 0
    classes: int = 0
    max_error: float = 0.0
    error: ExactSum = field(default_factory=ExactSum)
    finished_before: bool = False

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None:
        """Add float32 logits (n, classes) of the reference and the bundle, and labels (n,) if there are any."""
        finite_expected, finite_found = np.isfinite(expected).all(axis=1), np.isfinite(found).all(axis=1)
        finite = finite_expected & finite_found
        expected_class, found_class = expected.argmax(axis=1), found.argmax(axis=1)
        self.classes = expected.shape[1]
        self.samples += len(expected)
        self.non_finite_samples += int((~finite).sum())
        self.agreements += int((finite & (expected_class == found_class)).sum())
        self.top5_agreements += int((finite & _among_first(found, expected_class)).sum())
        self.bit_identical += int((_bits(expected) == _bits(found)).all(axis=1).sum())
        if finite.any():
            error = np.abs(expected[finite].astype(np.float64) - found[finite].astype(np.float64))
            self.compared_logits += error.size
            self.max_error = max(self.max_error, float(error.max()))
            self.error.add(error)
        if labels is not None:
            self.labelled += len(labels)
            # argmax takes a NaN for the largest value: such an answer is no hit.
            self.reference_hits += int((finite_expected & (expected_class == labels)).sum())
            self.bundle_hits += int((finite_found & (found_class == labels)).sum())
            self.reference_top5_hits += int((finite_expected & _among_first(expected, labels)).sum())
            self.bundle_top5_hits += int((finite_found & _among_first(found, labels)).sum())

    def result(self, min_agreement: float = 1.0, *, exact: bool = False) -> ModelResult:
        """The totals; top-5 figures are None where there are no more than five classes.

        Args:
            min_agreement: the top-1 agreement that passes.
            exact: all logits must be equal bit for bit, too.
        """
        agreement = self.agreements / self.samples
        labelled, top5 = bool(self.labelled), self.classes > TOP
        return ModelResult(
            samples=self.samples,
            agreements=self.agreements,
            top1_agreement=agreement,
            top1_agreement_interval=wilson_interval(self.agreements, self.samples),
            top5_agreement=self.top5_agreements / self.samples if top5 else None,
            bit_identical=self.bit_identical,
            max_abs_error=self.max_error if self.compared_logits else None,
            mean_abs_error=self.error.mean(self.compared_logits) if self.compared_logits else None,
            non_finite_samples=self.non_finite_samples,
            reference_top1=self.reference_hits / self.labelled if labelled else None,
            bundle_top1=self.bundle_hits / self.labelled if labelled else None,
            reference_top1_interval=wilson_interval(self.reference_hits, self.labelled) if labelled else None,
            bundle_top1_interval=wilson_interval(self.bundle_hits, self.labelled) if labelled else None,
            reference_top5=self.reference_top5_hits / self.labelled if labelled and top5 else None,
            bundle_top5=self.bundle_top5_hits / self.labelled if labelled and top5 else None,
            min_agreement=min_agreement,
            passed=agreement >= min_agreement and (not exact or self.bit_identical == self.samples),
        )

    def warnings(self) -> list[str]:
        """One sentence each, what limits this result."""
        found = []
        if self.non_finite_samples:
            found.append(f"{self.non_finite_samples} samples have NaN or infinite logits and count as disagreements.")
        if self.finished_before:
            found.append(
                "The state file holds the totals of this run, which had finished: no image was run again; remove the file "
                "to run them."
            )
        return found

    def to_state(self) -> dict[str, Any]:
        """All totals, exactly, as JSON."""
        counts = {name: getattr(self, name) for name in (*_COUNTS, "classes")}
        return {**counts, "max_error": self.max_error.hex(), "error_units": hex(self.error.units)}

    def load_state(self, fields: Fields) -> None:
        """Take over what ``to_state`` gave; raises ValueError for anything else."""
        counts = {name: fields.take(name, whole()) for name in (*_COUNTS, "classes")}
        max_error, units = fields.take("max_error", _hexadecimal), int(fields.take("error_units", text), 16)
        bounded = all(counts[name] <= counts["samples"] for name in _COUNTS if name != "compared_logits")
        # No difference of two logits is as much as 2**129, and a unit is 2**-149.
        if not bounded or not 0 <= max_error < 2.0**129 or not 0 <= units < counts["compared_logits"] * 2**278 + 1:
            raise ValueError("its totals do not fit each other")
        for name, count in counts.items():
            setattr(self, name, count)
        self.max_error, self.error = max_error, ExactSum(units)


def compare(
    dataset: Dataset,
    samples: int,
    reference: Run,
    bundle: RunMany,
    batch: int,
    progress: ReportProgress = quiet,
    state: RunState | None = None,
) -> Comparison:
    """Run both on the first ``samples`` images, ``batch`` at a time; memory does not grow with ``samples``.

    Args:
        bundle: takes the batches of images and gives their outputs, perhaps of more images than asked for, in that order;
            it may take some batches ahead.
        state: where an interrupted run goes on from, and what keeps its totals from time to time.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came while there is a state.
        InputError: the state is another run's, or damaged.
        DeviceError: the bundle gave too few results.
    """
    comparison = Comparison()
    waiting: deque[Batch] = deque()
    start = 0
    if state is not None:
        start = state.load({"comparison": comparison}, samples, batch)
        if start == samples:
            comparison.finished_before = True
            return comparison
        progress(f"going on after image {start} of {samples}")
    pace = Pace(samples, start)

    def batches() -> Iterator[np.ndarray]:
        for images, labels in dataset.batches(batch, samples, start):
            waiting.append((images, labels))
            yield images

    with stoppable(state):
        # The bundle first: a wrong device or batch then shows before the slow reference has run.
        for found in bundle(batches()):
            images, labels = waiting.popleft()
            comparison.add(_logits(reference(images)), _logits(found[: len(images)]), labels)
            if state is not None:
                state.reached(comparison.samples)
            progress(pace.message(comparison.samples))
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


def _among_first(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether the logit of each row's class is among its row's ``TOP`` largest; of equal ones the first count."""
    own = np.take_along_axis(logits, classes[:, None], axis=1)
    before = np.arange(logits.shape[1]) < classes[:, None]
    rank: np.ndarray = ((logits > own) | ((logits == own) & before)).sum(axis=1)
    return rank < TOP


def _hexadecimal(value: object) -> float:
    """A rule: the number in a text of ``float.hex``."""
    try:
        return float.fromhex(text(value))
    except OverflowError:
        raise Unfit(value, "a number that a float holds") from None


def _bits(logits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(logits, np.float32).view(np.uint32)


def _logits(output: np.ndarray) -> np.ndarray:
    return output.reshape(len(output), -1)
