"""The inputs on which seeded weights keep a margin from their thresholds: three numbers in a model's files make them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata import entries

LARGEST_SEED = 2**32 - 1
_LARGEST_INPUT = 2**28
_COARSE = 4
_KIND = "normal"


@dataclass(frozen=True)
class Calibration:
    """The arguments of ``calibration_inputs``."""

    seed: int
    samples: int
    shape: tuple[int, ...]

    def to_json(self) -> str:
        """The metadata entry."""
        return json.dumps({"seed": self.seed, "samples": self.samples, "shape": list(self.shape), "kind": _KIND})


def calibration_of(metadata: Mapping[str, str], source: Path) -> Calibration | None:
    """What the metadata of the ONNX file ``source`` say; None if they say nothing.

    Raises:
        ModelFileError: an entry that cannot be understood.
    """
    text = metadata.get(entries.CALIBRATION)
    if not text:
        return None
    try:
        entry = json.loads(text)
        seed, samples, shape = int(entry["seed"]), int(entry["samples"]), tuple(int(side) for side in entry["shape"])
        if entry["kind"] != _KIND or not 0 <= seed <= LARGEST_SEED:
            raise ValueError("unknown kind or seed")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(
            f"{source}: its metadata entry {entries.CALIBRATION} cannot be understood ({error}); export the model again."
        ) from error
    return Calibration(seed, samples, shape)


def calibration_inputs(seed: int, samples: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Images that calibration used: float32 (samples, channels, height, width), the same on every machine.

    Normal noise on a coarse pattern that differs from image to image. Values are multiples of 1/64, so that a last-bit
    difference between two mathematics libraries cannot show.

    Raises:
        InputError: no samples, not three dimensions, more than 2**28 values, or a seed outside 0..2**32 - 1.
    """
    if samples < 1 or len(shape) != 3 or min(shape) < 1 or samples * int(np.prod(shape, dtype=object)) > _LARGEST_INPUT:
        raise InputError(
            f"Calibration needs at least 1 sample of (channels, height, width) and at most {_LARGEST_INPUT} values, "
            f"but got {samples} of {tuple(shape)}."
        )
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"The seed {seed} is not usable; give a number from 0 to {LARGEST_SEED}.")
    channels, height, width = shape
    # RandomState's streams are frozen by numpy's compatibility policy; Generator's are not.
    random = np.random.RandomState(seed)
    coarse = random.standard_normal((samples, channels, _COARSE, _COARSE))
    rows, columns = (np.arange(side) * _COARSE // side for side in (height, width))
    images = 0.8 * coarse[:, :, rows[:, None], columns[None, :]]
    images += 0.6 * random.standard_normal(images.shape)
    return (np.round(images * 64) / 64).astype(np.float32)
