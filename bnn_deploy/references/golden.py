"""A golden file: images, logits and the bits of every layer, recorded once, so that comparing needs no PyTorch and no ONNX.

The arrays, all in one .npz file (``stored_arrays``):

    header                uint8, JSON, see ``golden_header``
    images                float32 (images, *image_shape)
    labels                int64 (images,), if there are any
    logits                float32 (images, classes)
    sign_N.bits           uint8 (planes, bytes): values +1, and of a three-valued layer also values -1, flat, 1 bit each
    sign_N.on_threshold   positions with x == t
    sign_N.near           positions near the threshold, but not on it (``SignValues.near_index``)
    sign_N.distance       float32, |x - t| at each of these

Bits are packed least significant first (``bnn_deploy.bits``) in the order of the ONNX layout, padded with 0. Positions are
int64, or 1 bit for each value where that is shorter: in a layer of integers half of the values may lie on the threshold.

It is written by ``golden_recording``, and read here with numpy alone, after everything in it was checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bnn_deploy.errors import InputError
from bnn_deploy.references.golden_header import GoldenHeader, GoldenSign, parse_header
from bnn_deploy.references.layer_values import HISTOGRAM_EDGES, LayerValues, SignValues
from bnn_deploy.references.margin import near_limit
from bnn_deploy.references.stored_arrays import StoredArrays

_WHAT = "golden file"
_LARGEST_HEADER = 2**26


@dataclass(frozen=True)
class Golden:
    """A ``LayerReference`` for the images that were recorded.

    Attributes:
        path: the file.
        header: what it says of itself.
        images: float32 (n, *input_shape).
        labels: int64 (n,), or None.
        values: of all images.
    """

    path: Path
    header: GoldenHeader
    images: np.ndarray
    labels: np.ndarray | None
    values: LayerValues

    name = "golden"

    @classmethod
    def open(cls, path: Path) -> Golden:
        """Read and check a golden file; no array is larger than the file.

        Raises:
            InputError: no golden file, of another version, or damaged: says where.
        """
        stored = StoredArrays(path, _WHAT)
        try:
            header = parse_header(stored.text("header", _LARGEST_HEADER), len(HISTOGRAM_EDGES))
        except ValueError as error:
            raise stored.damaged(str(error)) from error
        images = stored.take("images", "float32", (header.images, *header.image_shape))
        labels = stored.take("labels", "int64", (header.images,)) if header.labelled else None
        if labels is not None and (labels.min() < 0 or labels.max() >= header.classes):
            raise stored.damaged(f"its labels are not from 0 to {header.classes - 1}")
        logits = stored.take("logits", "float32", (header.images, header.classes))
        signs = {sign.tensor: _read_sign(stored, number, sign) for number, sign in enumerate(header.signs)}
        margins = {header.output: header.output_margin}
        return cls(path, header, images, labels, LayerValues(signs, {}, margins, logits, header.notes))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.header.image_shape

    @property
    def logits(self) -> np.ndarray:
        """float32 (n, classes), of all images."""
        return self.values.logits

    def run(self, images: np.ndarray) -> np.ndarray:
        """The recorded logits of some of ``images``, float32 (n, classes); raises InputError for any others."""
        found: np.ndarray = self.logits[self._numbers(images)]
        return found

    def capture(self, images: np.ndarray, floats: Sequence[str] = ()) -> LayerValues:
        """The recorded values of some of ``images``, in any order, repeated or not. No real values are recorded.

        Scales and margins stay those of all images.

        Raises:
            InputError: an image that was not recorded, or only some of them from a model that mixes images.
        """
        numbers = self._numbers(images)
        if np.array_equal(numbers, np.arange(len(self.images))):
            return self.values
        signs = {tensor: self._of_images(sign, numbers) for tensor, sign in self.values.signs.items()}
        values = self.values
        return LayerValues(signs, {}, values.float_margins, values.logits[numbers], values.notes)

    def _numbers(self, images: np.ndarray) -> np.ndarray:
        """Which of the recorded images these are."""
        known = {image.tobytes(): number for number, image in reversed(list(enumerate(self.images)))}
        fits = images.dtype == np.float32 and images.shape[1:] == self.input_shape
        numbers = [known.get(image.tobytes(), -1) for image in images] if fits else [-1]
        if -1 in numbers or not numbers:
            raise InputError(
                f"{self.path}: holds values for its own {len(self.images)} images only; take the images from it, or record "
                "these with `bnn-deploy golden`."
            )
        return np.array(numbers, np.int64)

    def _of_images(self, sign: SignValues, numbers: np.ndarray) -> SignValues:
        count = len(self.images)
        if len(sign.histograms) != count:
            raise InputError(
                f"{self.path}: layer {sign.layer} does not tell its {count} images apart; compare all of them at once."
            )
        size = sign.values.size // count
        index, distance = [], []
        for place, number in enumerate(numbers):
            first, last = np.searchsorted(sign.near_index, [number * size, (number + 1) * size])
            index.append(sign.near_index[first:last] + (place - number) * size)
            distance.append(sign.near_distance[first:last])
        by_image = sign.values.reshape(count, -1, *sign.values.shape[1:])[numbers]
        return SignValues(
            sign.layer,
            sign.tensor,
            sign.fed_by,
            by_image.reshape(-1, *sign.values.shape[1:]),
            np.concatenate(index),
            np.concatenate(distance),
            sign.scale,
            sign.margin,
            sign.histograms[numbers],
            sign.ternary,
        )


def _read_sign(stored: StoredArrays, number: int, sign: GoldenSign) -> SignValues:
    prefix = f"sign_{number}"
    planes = stored.take(f"{prefix}.bits", "uint8", (1 + sign.ternary, -(-sign.size // 8)))
    positive, *negative = [_unpacked(plane, sign.size) for plane in planes]
    if negative:
        if (positive & negative[0]).any():
            raise stored.damaged(f"{sign.layer!r} has values that are +1 and -1")
        values = positive.astype(np.int8) - negative[0]
    else:
        values = 2 * positive.astype(np.int8) - np.int8(1)
    on = _take_positions(stored, f"{prefix}.on_threshold", sign.on_threshold, sign.size)
    near = _take_positions(stored, f"{prefix}.near", sign.near, sign.size)
    distance = stored.take(f"{prefix}.distance", "float32", (sign.near,))
    # Rounding to float32 may have carried the largest of them over the limit.
    limit = np.float32(near_limit(sign.margin) * sign.scale)
    if not ((distance > 0) & (distance <= limit)).all():
        raise stored.damaged(f"distances from the threshold of {sign.layer!r} are not between 0 and {limit:g}")
    index = np.concatenate([on, near])
    order = np.argsort(index, kind="stable")
    if (np.diff(index[order]) == 0).any():
        raise stored.damaged(f"{sign.layer!r} has positions that are on the threshold and beside it")
    return SignValues(
        sign.layer,
        sign.tensor,
        sign.fed_by,
        values.reshape(sign.shape),
        index[order],
        np.concatenate([np.zeros(len(on), np.float32), distance])[order],
        sign.scale,
        sign.margin,
        np.array(sign.histograms, np.int64).reshape(-1, len(HISTOGRAM_EDGES)),
        sign.ternary,
    )


def _unpacked(packed: np.ndarray, size: int) -> np.ndarray:
    """int8 of 0 and 1."""
    return np.unpackbits(packed, count=size, bitorder="little").view(np.int8)


def is_mask(count: int, size: int) -> bool:
    """Whether ``count`` positions of ``size`` are stored as bits, which are shorter then than numbers."""
    return 8 * count > -(-size // 8)


def _take_positions(stored: StoredArrays, name: str, count: int, size: int) -> np.ndarray:
    if is_mask(count, size):
        positions = np.flatnonzero(_unpacked(stored.take(name, "uint8", (-(-size // 8),)), size))
        fits = len(positions) == count
    else:
        positions = stored.take(name, "int64", (count,))
        fits = bool((np.diff(positions) > 0).all()) and (not count or (positions[0] >= 0 and positions[-1] < size))
    if not fits:
        raise stored.damaged(f"the positions in array {name!r} are not {count} of {size}, ascending")
    return positions
