"""What a reference says of every binarisation: its values, and how near each was to its threshold.

A reference computes x in float32, a compiled network computes the same x in another order of rounding. Where |x - t| is of
the size of that rounding (``margin``) both answers of the sign are right; elsewhere only one is. So a reference gives, beside the
value of every sign, the positions near the threshold and their distances, and a histogram of all distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnn_deploy.errors import InputError
from bnn_deploy.references.margin import RELATIVE_MARGIN, near_limit

# Upper ends of the classes of |x - t| / scale, each included; the first class is x == t.
HISTOGRAM_EDGES = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, float("inf"))


@dataclass(frozen=True)
class SignValues:
    """One binarisation on some images.

    Attributes:
        layer: name of the Sign or Ternary node.
        tensor: name of its output in the model that the compiler sees.
        fed_by: names of the nodes between the binarisations before (or the input) and this one, in the order of the graph.
        values: int8 of -1, 0 and +1, in the ONNX layout, images first.
        near_index: int64, flat positions in ``values`` with |x - t| <= near_limit(margin) * scale, ascending; all of them.
        near_distance: float32, |x - t| at these positions.
        scale: largest finite |x| or |t| of the layer over these images; margins are relative to it.
        margin: the rounding margin of this layer, see ``margin``.
        histograms: int64 (images, classes of ``HISTOGRAM_EDGES``), number of positions in each class; one row for all where
            ``values`` is not made of whole images. NaN and infinite x count as infinitely far.
        ternary: whether 0 is one of its values.
    """

    layer: str
    tensor: str
    fed_by: tuple[str, ...]
    values: np.ndarray
    near_index: np.ndarray
    near_distance: np.ndarray
    scale: float
    margin: float
    histograms: np.ndarray
    ternary: bool

    @property
    def histogram(self) -> tuple[int, ...]:
        """Number of positions in each class, over all images."""
        return tuple(int(count) for count in self.histograms.sum(axis=0))

    def within(self, margin: float | None = None) -> np.ndarray:
        """Flat positions (int64, ascending) with |x - t| <= margin * scale; None is the layer's own margin.

        Raises:
            InputError: a margin beyond which the reference did not look.
        """
        chosen = self.margin if margin is None else margin
        if not chosen <= near_limit(self.margin):
            raise InputError(
                f"Layer {self.layer}: the reference keeps distances up to {near_limit(self.margin):.3g} of the layer's scale, "
                f"asked for a margin of {chosen:g}; give a smaller one."
            )
        return self.near_index[self.near_distance <= chosen * self.scale]

    def distance(self, position: int) -> float | None:
        """|x - t| at a flat position; None if it is not near the threshold."""
        place = int(np.searchsorted(self.near_index, position))
        found = place < len(self.near_index) and self.near_index[place] == position
        return float(self.near_distance[place]) if found else None


@dataclass(frozen=True)
class LayerValues:
    """What a reference computes for some images.

    Attributes:
        signs: by the tensor's name, in the order of the graph.
        floats: those of the asked values that the reference knows: float32 in the ONNX layout, images first.
        float_margins: rounding margins of these values, and of the output of the graph, relative to the largest finite one.
        logits: float32 (images, classes).
        notes: one sentence each, what the user must know of these values.
    """

    signs: Mapping[str, SignValues]
    floats: Mapping[str, np.ndarray]
    float_margins: Mapping[str, float]
    logits: np.ndarray
    notes: tuple[str, ...] = ()


class LayerReference(Protocol):
    """A source of ``LayerValues``."""

    @property
    def name(self) -> str:
        """As in reports: "onnxruntime", "torch" or "golden"."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        ...

    def capture(self, images: np.ndarray, floats: Sequence[str] = ()) -> LayerValues:
        """Values for float32 images (n, *input_shape); ``floats`` names real values of the compiler's model."""
        ...


@dataclass(frozen=True)
class SignPlace:
    """Where a binarisation stands in the graph; attributes as in ``SignValues``."""

    layer: str
    tensor: str
    fed_by: tuple[str, ...]
    ternary: bool


@dataclass(frozen=True)
class RawSign:
    """A binarisation of one batch: x, its threshold or thresholds (broadcast to x), and its values (int8)."""

    x: np.ndarray
    thresholds: tuple[np.ndarray, ...]
    values: np.ndarray


@dataclass(frozen=True)
class RawLayers:
    """What a runtime gives for one batch, by tensor."""

    signs: Mapping[str, RawSign]
    floats: Mapping[str, np.ndarray]
    logits: np.ndarray


def measure(
    places: Iterable[SignPlace],
    batches: Callable[[], Iterator[RawLayers]],
    margins: Callable[[RawLayers], Mapping[str, float]],
    keep: bool,
    notes: Sequence[str] = (),
) -> LayerValues:
    """Make ``LayerValues`` of raw values.

    Args:
        places: the signs, in the order of the graph.
        batches: gives the raw values, from the start each time that it is called.
        margins: rounding margins of signs and floats, by tensor, from the raw values of the first batch.
        keep: hold the real values of all batches. If not, those of one at a time, and everything is computed twice: distances
            relate to a scale over all of them.
        notes: for the result.
    """
    parts = {place.tensor: _Part(place) for place in places}
    found: Mapping[str, float] = {}
    kept: list[RawLayers] = []
    for raw in batches():
        found = found or margins(raw)
        kept += [raw] * keep
        for tensor, part in parts.items():
            part.see(raw.signs[tensor])
    floats: dict[str, list[np.ndarray]] = {}
    logits: list[np.ndarray] = []
    for raw in kept if keep else batches():
        for tensor, part in parts.items():
            part.add(raw.signs[tensor], found[tensor], len(raw.logits))
        for tensor, values in raw.floats.items():
            floats.setdefault(tensor, []).append(np.asarray(values, np.float32))
        logits.append(np.asarray(raw.logits, np.float32).reshape(len(raw.logits), -1))
    return LayerValues(
        {tensor: part.result(found[tensor]) for tensor, part in parts.items()},
        {tensor: np.concatenate(values) for tensor, values in floats.items()},
        # A sign that was asked for as a float is -1, 0 or +1: only its own margin, of x, is about rounding.
        {tensor: RELATIVE_MARGIN for tensor in floats} | {each: found[each] for each in found if each not in parts},
        np.concatenate(logits),
        tuple(notes),
    )


class _Part:
    """Running totals of one sign."""

    def __init__(self, place: SignPlace) -> None:
        self.place = place
        self.scale = 0.0
        self.values: list[np.ndarray] = []
        self.index: list[np.ndarray] = []
        self.distance: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []
        self.seen = 0
        self.whole = True

    def see(self, raw: RawSign) -> None:
        self.scale = max(self.scale, *(largest(array) for array in (raw.x, *raw.thresholds)))

    def add(self, raw: RawSign, margin: float, images: int) -> None:
        distance = distances(raw)
        whole = raw.values.ndim > 0 and len(raw.values) % images == 0
        rows = [*distance.reshape(images, -1)] if whole else [distance]
        self.counts.append(np.stack([histogram(row, self.scale) for row in rows]))
        self.whole = self.whole and whole
        near = np.flatnonzero(distance <= near_limit(margin) * self.scale)
        self.index.append(near + self.seen)
        # Two float32 numbers differ by nothing or by at least the smallest subnormal, so that no distance rounds to 0.
        self.distance.append(distance[near].astype(np.float32))
        self.values.append(raw.values)
        self.seen += distance.size

    def result(self, margin: float) -> SignValues:
        counts = np.concatenate(self.counts)
        return SignValues(
            self.place.layer,
            self.place.tensor,
            self.place.fed_by,
            np.concatenate(self.values),
            np.concatenate(self.index),
            np.concatenate(self.distance),
            self.scale,
            margin,
            counts if self.whole else counts.sum(axis=0, keepdims=True),
            self.place.ternary,
        )


def distances(raw: RawSign) -> np.ndarray:
    """|x - t| to the nearest threshold, float64, flat; infinite where either is NaN or infinite."""
    x = raw.x.astype(np.float64)
    nearest = np.full(x.shape, np.inf)
    with np.errstate(invalid="ignore"):
        for threshold in raw.thresholds:
            distance = np.abs(x - threshold)
            np.minimum(nearest, np.where(np.isnan(distance), np.inf, distance), out=nearest)
    return nearest.reshape(-1)


def histogram(distance: np.ndarray, scale: float) -> np.ndarray:
    """int64 counts of ``distance / scale`` in the classes of ``HISTOGRAM_EDGES``."""
    # All finite values are 0 where the scale is.
    relative = distance / scale if scale else distance
    classes = np.searchsorted(np.array(HISTOGRAM_EDGES), relative, side="left")
    return np.bincount(classes, minlength=len(HISTOGRAM_EDGES))


def largest(array: np.ndarray) -> float:
    """The largest finite magnitude, 0 if there is none."""
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max(initial=0.0))
