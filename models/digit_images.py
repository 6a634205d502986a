"""scikit-learn's handwritten digits, which models are trained on and compared on. Needs no PyTorch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnn_deploy.errors import ToolError

TEST_SHARE = 0.2

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def load_digits_split() -> tuple[FloatArray, IntArray, FloatArray, IntArray]:
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
    digits = load_digits()
    # Exact, as pixels are whole numbers: from pixels / 8 - 1 the pixels / 16 of `as_shares` come back bit by bit.
    images = (digits.images[:, None] / 8 - 1).astype(np.float32)
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=TEST_SHARE, random_state=0, stratify=labels
    )
    return x_train, y_train, x_test, y_test


def as_shares(images: FloatArray) -> FloatArray:
    """``images`` of ``load_digits_split`` with their pixels / 16, in 0..1 as those of pictures; exact."""
    return (images + np.float32(1)) / np.float32(2)
