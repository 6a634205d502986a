"""The digits: which images are trained on, and which are tested on."""

from __future__ import annotations

import numpy as np

from bnn_deploy.data.digits import load_digits_split


def test_split_is_fixed_and_disjoint() -> None:
    """Breaks if test images leak into training, or the split changes from run to run."""
    x_train, y_train, x_test, y_test = load_digits_split()
    assert x_train.shape == (1437, 1, 8, 8)
    assert x_test.shape == (360, 1, 8, 8)
    assert (x_train.dtype, y_train.dtype, len(y_test)) == (np.float32, np.int64, 360)
    assert {image.tobytes() for image in x_train}.isdisjoint(image.tobytes() for image in x_test)
    assert np.bincount(y_test).min() >= 34
    assert (x_train.min(), x_train.max()) == (-1, 1)
    np.testing.assert_array_equal(load_digits_split()[2], x_test)
