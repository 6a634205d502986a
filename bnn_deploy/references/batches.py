"""Images in batches of the size that a model insists on."""

from __future__ import annotations

from math import prod

import numpy as np

from bnn_deploy.errors import InputError

# Elements of the images of one batch where layers are captured: a network binarises some 70 times as many values.
_ELEMENTS = 2**18
# Elements of all images up to which the real values of all layers are kept: some 400 MB.
_KEPT_ELEMENTS = 2**20


def fill_batch(images: np.ndarray, unit: int) -> np.ndarray:
    """``images`` and as many copies of the last one as make whole batches of ``unit``."""
    # Images of a batch do not influence each other, so anything can fill it up.
    return np.concatenate([images, np.repeat(images[-1:], -len(images) % unit, axis=0)])


def check_images(images: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse what is not float32 (n, *shape) with n > 0.

    Raises:
        InputError: says what was found.
    """
    if images.dtype != np.float32 or images.shape[1:] != shape or not len(images):
        raise InputError(
            f"The reference takes float32 images of shape (N, {', '.join(map(str, shape))}), found {images.dtype} "
            f"{images.shape}; convert them."
        )


def images_at_once(shape: tuple[int, ...]) -> int:
    """How many images of ``shape`` to capture layers of in one run."""
    return max(1, _ELEMENTS // prod(shape))


def may_keep(images: np.ndarray) -> bool:
    """Whether the real values of all layers of these images fit in memory at once."""
    return images.size <= _KEPT_ELEMENTS
