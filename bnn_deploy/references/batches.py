"""Images in batches of the size that a model insists on."""

from __future__ import annotations

import numpy as np


def fill_batch(images: np.ndarray, unit: int) -> np.ndarray:
    """``images`` and as many copies of the last one as make whole batches of ``unit``."""
    # Images of a batch do not influence each other, so anything can fill it up.
    return np.concatenate([images, np.repeat(images[-1:], -len(images) % unit, axis=0)])
