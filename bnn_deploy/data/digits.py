"""The test images of scikit-learn's digits, prepared for any model whose metadata say how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.data.image_file import middle, normalised
from bnn_deploy.errors import InputError
from bnn_deploy.metadata.preprocessing import Preprocessing, digits, preprocessing_of, required_preprocessing
from bnn_deploy.models.digit_images import as_shares, load_digits_split

NAME = "digits"
SHAPE = (1, 8, 8)
CLASS_NAMES = tuple("0123456789")


def open_digits(shape: tuple[int, ...], classes: int, metadata: Mapping[str, Any], model: str) -> Dataset:
    """The 360 images of ``models.digit_images`` that are not trained on, with labels.

    They are prepared as the model's metadata say, and as for the digit models here if these say nothing of 8x8 grey images.

    Raises:
        InputError: fewer than 10 classes, or other images without metadata that say how to make them.
        ModelFileError: metadata that cannot be understood.
        ToolError: scikit-learn is not installed.
    """
    if classes < len(CLASS_NAMES):
        raise InputError(
            f"--data {NAME}: the digits have {len(CLASS_NAMES)} classes, but {model} has only {classes}; give images that "
            "fit it."
        )
    note = ""
    if shape == SHAPE and preprocessing_of(metadata, model) is None:
        preprocessing = digits(SHAPE[1])
        note = f"{model} does not say how its inputs are scaled; the digits were scaled to -1..1."
    else:
        preprocessing = required_preprocessing(metadata, model, shape)
    _, _, images, labels = load_digits_split()
    pixels = as_shares(images)[:, 0]

    def chunks_from(start: int, size: int) -> Iterator[Batch]:
        for position in range(start, len(pixels), size):
            chunk = [prepared_digit(image, preprocessing) for image in pixels[position : position + size]]
            yield np.stack(chunk), labels[position : position + size]

    return Dataset(
        "scikit-learn's digits, test split",
        len(pixels),
        True,
        lambda size: chunks_from(0, size),
        note,
        chunks_from=chunks_from,
    )


def prepared_digit(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """One digit, float32 (8, 8) in 0..1, as a model's input; its grey is all channels of an RGB one."""
    return normalised(middle(Image.fromarray(pixels), preprocessing, NAME), preprocessing)
