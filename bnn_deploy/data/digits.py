"""scikit-learn's handwritten digits: the images to train on, and those to test any model on whose metadata say how."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.errors import InputError, ToolError
from bnn_deploy.metadata.preprocessing import Preprocessing, digits, preprocessing_of, required_preprocessing

SHAPE = (1, 8, 8)
CLASS_NAMES = tuple("0123456789")
TEST_SHARE = 0.2
# What ``--data`` calls them.
_NAME = "digits"

FloatArray = NDArray[np.float32]
IntegerArray = NDArray[np.int64]


def means_digits(path: Path) -> bool:
    """Whether ``--data path`` is scikit-learn's digits; raises InputError if there is something else of that name."""
    if str(path) != _NAME:
        return False
    if os.path.lexists(path):
        raise InputError(
            f"--data {_NAME} means scikit-learn's digits, but there is a file or folder of that name here, too; "
            "give its absolute path, or run this in another folder."
        )
    return True


def load_digits_split() -> tuple[FloatArray, IntegerArray, FloatArray, IntegerArray]:
    """The 1797 real 8x8 images: x_train (1437, 1, 8, 8), y_train, x_test (360, 1, 8, 8), y_test.

    Pixels 0..16 are scaled to -1..1; the split is stratified by class and always the same.

    Raises:
        ToolError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ToolError(
            "The digits come with scikit-learn, which is not installed; run `pip install scikit-learn`."
        ) from error
    loaded = load_digits()
    # Exact, as pixels are whole numbers: from pixels / 8 - 1 the pixels / 16 of `as_shares` come back bit by bit.
    images = (loaded.images[:, None] / 8 - 1).astype(np.float32)
    labels = loaded.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=TEST_SHARE, random_state=0, stratify=labels
    )
    return x_train, y_train, x_test, y_test


def as_shares(images: FloatArray) -> FloatArray:
    """``images`` of ``load_digits_split`` with their pixels / 16, in 0..1 as those of pictures; exact."""
    shares: FloatArray = (images + np.float32(1)) / np.float32(2)
    return shares


def open_digits(shape: tuple[int, ...], classes: int, metadata: Mapping[str, Any], model: str) -> Dataset:
    """The 360 images of ``load_digits_split`` that are not trained on, with labels.

    They are prepared as the model's metadata say, and as for the digit models here if these say nothing of 8x8 grey images.

    Raises:
        InputError: fewer than 10 classes, or other images without metadata that say how to make them.
        ModelFileError: metadata that cannot be understood.
        ToolError: scikit-learn is not installed.
    """
    if classes < len(CLASS_NAMES):
        raise InputError(
            f"--data {_NAME}: the digits have {len(CLASS_NAMES)} classes, but {model} has only {classes}; give images that "
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
            chunk = [_prepared(image, preprocessing) for image in pixels[position : position + size]]
            yield np.stack(chunk), labels[position : position + size]

    return Dataset(
        "scikit-learn's digits, test split",
        len(pixels),
        True,
        lambda size: chunks_from(0, size),
        note,
        chunks_from=chunks_from,
    )


def _prepared(pixels: FloatArray, preprocessing: Preprocessing) -> FloatArray:
    """One digit, float32 (8, 8) in 0..1, as a model's input; its grey is all channels of an RGB one."""
    # Pillow takes a while to load, and who opens arrays passes through this module, too.
    from PIL import Image

    from bnn_deploy.data.image_file import middle, normalised

    return normalised(middle(Image.fromarray(pixels), preprocessing, _NAME), preprocessing)
