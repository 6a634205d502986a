"""The test images of scikit-learn's digits, for models that take 8x8 grey images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.errors import InputError
from bnn_deploy.models.digit_images import load_digits_split
from bnn_deploy.preprocessing import preprocessing_of

NAME = "digits"
SHAPE = (1, 8, 8)
CLASSES = 10


def open_digits(shape: tuple[int, ...], classes: int, metadata: Mapping[str, Any], model: str) -> Dataset:
    """The 360 images of ``models.digit_images`` that are not trained on, with labels.

    They are normalised as the model's metadata say, and to -1..1, as for the digit models here, if these say nothing.

    Raises:
        InputError: a model of other images, or of fewer than 10 classes.
        ModelFileError: metadata that cannot be understood.
        ToolError: scikit-learn is not installed.
    """
    if shape != SHAPE or classes < CLASSES:
        raise InputError(
            f"--data {NAME}: the digits are images {SHAPE} of {CLASSES} classes, but {model} takes {shape} to {classes}; "
            "give images that fit it."
        )
    preprocessing = preprocessing_of(metadata, model)
    _, _, images, labels = load_digits_split()
    note = ""
    if preprocessing is None:
        note = f"{model} does not say how its inputs are scaled; the digits were scaled to -1..1."
    else:
        # Pixels / 16 are the numbers 0..1 that pictures have; these steps are exact, as pixels are whole numbers to 16.
        pixels = (images + np.float32(1)) / np.float32(2)
        images = (pixels - np.float32(preprocessing.mean[0])) / np.float32(preprocessing.std[0])

    def chunks_from(start: int, size: int) -> Iterator[Batch]:
        for position in range(start, len(images), size):
            yield images[position : position + size], labels[position : position + size]

    return Dataset(
        "scikit-learn's digits, test split",
        len(images),
        True,
        lambda size: chunks_from(0, size),
        note,
        chunks_from=chunks_from,
    )
