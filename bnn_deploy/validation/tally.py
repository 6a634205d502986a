"""What is known of one value of the network while images come in: counts, largest error, the first example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from bnn_deploy.bundle.tensor_table import TensorEntry
from bnn_deploy.references.layer_values import SignValues
from bnn_deploy.validation.report import Example, TensorResult


@dataclass(frozen=True)
class Occasion:
    """Where the values being compared come from.

    Attributes:
        first_image: number of the first image among them.
        images: how many there are.
        pattern: what was forced.
    """

    first_image: int
    images: int
    pattern: str = "data"


@dataclass
class Tally:
    """Running totals of one row; ``entry`` says how the value lies in memory."""

    entry: TensorEntry
    fed_by: tuple[str, ...] = ()
    kind: str = ""
    compared: int = 0
    differing: int = 0
    within_margin: int = 0
    near_threshold: int | None = None
    histogram: tuple[int, ...] | None = None
    max_error: float | None = None
    margin: float | None = None
    example: Example | None = None

    def add_exact(self, expected: np.ndarray, found: np.ndarray, occasion: Occasion) -> None:
        """Arrays in the layout of memory that must be equal bit for bit; a NaN equals any NaN."""
        entry = self.entry
        self.compared += prod(entry.onnx_shape)
        same = expected.view(np.uint32) == found.view(np.uint32)
        if entry.kind == "floats":
            same |= np.isnan(expected) & np.isnan(found)
        if same.all():
            if entry.kind == "floats":
                self.max_error = max(0.0, self.max_error or 0.0)
            return
        if entry.kind == "words":
            # Bits behind the last channel count as well: other kernels rely on their being 0.
            whole = replace(entry, channels=32 * entry.shape[-1])
            expected, found = whole.to_onnx(expected), whole.to_onnx(found)
            wrong = expected != found
        else:
            wrong = ~entry.to_onnx(same)
            expected, found = entry.to_onnx(expected), entry.to_onnx(found)
            self._see_error(np.abs(_difference(expected, found)))
        self.differing += int(wrong.sum())
        if wrong.any():
            first = int(np.argmax(wrong.reshape(-1)))
            self._see_example(first, expected, found, None, occasion)
        elif entry.kind == "words":
            # Three-valued words whose signs are equal, but which say "positive" of what they say is 0.
            self.differing += 1

    def add_bits(self, expected: np.ndarray, found: np.ndarray, occasion: Occasion) -> None:
        """Signs in the layout of ONNX that must be equal."""
        self.compared += expected.size
        wrong = (expected != found).reshape(-1)
        self.differing += int(wrong.sum())
        if wrong.any():
            self._see_example(int(np.argmax(wrong)), expected, found, None, occasion)

    def add_signs(
        self,
        expected: np.ndarray,
        found: np.ndarray,
        sign: SignValues,
        margin: float | None,
        occasion: Occasion,
        exact: bool = False,
    ) -> None:
        """Signs in the layout of ONNX that may differ where the reference is within the margin of the threshold.

        Args:
            expected: of the reference, int8.
            found: of the bundle, in the same shape.
            sign: what else the reference says of them.
            margin: relative; None is the layer's own.
            occasion: where they come from.
            exact: rounding explains nothing, not even where the reference is on its threshold.
        """
        explained = sign.within(margin)
        relative = sign.margin if margin is None else margin
        self.compared += expected.size
        self.near_threshold = (self.near_threshold or 0) + len(explained)
        self.margin = max(0.0 if exact else relative * sign.scale, self.margin or 0.0)
        before = self.histogram or (0,) * len(sign.histogram)
        self.histogram = tuple(int(old + new) for old, new in zip(before, sign.histogram, strict=True))
        wrong = (expected != found).reshape(-1)
        self.differing += int(wrong.sum())
        if not exact:
            self.within_margin += int(wrong[explained].sum())
            wrong[explained] = False
        if wrong.any():
            first = int(np.argmax(wrong))
            self._see_example(first, expected, found, sign.distance(first), occasion)

    def add_floats(self, expected: np.ndarray, found: np.ndarray, margin: float, occasion: Occasion) -> None:
        """Floats in the layout of ONNX, which may differ by ``margin`` of the largest finite one; a NaN equals any NaN."""
        self.compared += expected.size
        finite = np.abs(expected[np.isfinite(expected)])
        absolute = margin * float(finite.max(initial=0.0))
        self.margin = max(absolute, self.margin or 0.0)
        error = np.abs(_difference(expected, found))
        self._see_error(error)
        wrong = ~(error <= absolute)
        self.differing += int(wrong.sum())
        if wrong.any():
            first = int(np.argmax(wrong.reshape(-1)))
            self._see_example(first, expected, found, float(error.reshape(-1)[first]), occasion)

    def result(self) -> TensorResult:
        """The row."""
        entry = self.entry
        return TensorResult(
            layer=entry.layer,
            tensor=entry.tensor,
            kind=self.kind or ("bits" if entry.kind == "words" else "float"),
            step=entry.step,
            compared=self.compared,
            differing=self.differing,
            within_margin=self.within_margin,
            near_threshold=self.near_threshold,
            histogram=self.histogram,
            max_error=self.max_error,
            margin=self.margin,
            fed_by=self.fed_by,
            passed=self.compared > 0 and self.differing == self.within_margin,
            example=self.example,
        )

    def _see_error(self, error: np.ndarray) -> None:
        if error.size:
            self.max_error = max(float(error.max()), self.max_error or 0.0)

    def _see_example(
        self, flat: int, expected: np.ndarray, found: np.ndarray, distance: float | None, occasion: Occasion
    ) -> None:
        if self.example is not None:
            return
        first, *position = (int(index) for index in np.unravel_index(flat, expected.shape))
        rows, rest = divmod(expected.shape[0], occasion.images)
        # Where several rows, such as the tokens of an image, lie along axis 0, the row is part of the position.
        if rest or not rows:
            image, position = 0, [first, *position]
        elif rows > 1:
            image, position = first // rows, [first % rows, *position]
        else:
            image = first
        values = float(expected.reshape(-1)[flat]), float(found.reshape(-1)[flat])
        self.example = Example(occasion.first_image + image, tuple(position), *values, distance, occasion.pattern)


def _difference(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """float64; 0 where both are NaN or the same infinity, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = expected.astype(np.float64) - found.astype(np.float64)
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
