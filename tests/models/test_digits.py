"""Training on real digits."""

from __future__ import annotations

import numpy as np
import torch

from bnn_deploy.models.digits import load_digits_split, train_digits
from bnn_deploy.models.registry import build_model


def test_split_is_fixed_and_disjoint() -> None:
    """Fails if test images leaked into training, or the split changed from run to run."""
    x_train, y_train, x_test, y_test = load_digits_split()
    assert x_train.shape == (1437, 1, 8, 8)
    assert x_test.shape == (360, 1, 8, 8)
    assert (x_train.dtype, y_train.dtype, len(y_test)) == (np.float32, np.int64, 360)
    assert {image.tobytes() for image in x_train}.isdisjoint(image.tobytes() for image in x_test)
    assert np.bincount(y_test).min() >= 34
    assert (x_train.min(), x_train.max()) == (-1, 1)
    np.testing.assert_array_equal(load_digits_split()[2], x_test)


def test_training_learns() -> None:
    """Fails if the straight-through gradients no longer train the binary layers."""
    torch.manual_seed(0)
    model = build_model("bimlp_tiny")
    losses: list[float] = []
    accuracy = train_digits(model, epochs=4, seed=0, progress=lambda epoch, total, loss: losses.append(loss))
    assert accuracy > 0.9
    assert not model.training
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2


def test_same_seed_same_training() -> None:
    """Fails if the demo's weights could not be made again."""
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        model = build_model("bimlp_tiny")
        train_digits(model, epochs=1, seed=3)
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
