"""Mixup and CutMix: where each pixel comes from, and what the targets say of it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.training.mixing import cutmix, mixed, mixup
from bnn_deploy.training.step import Step

STEP = Step("binary", epochs=1, batch_size=4, learning_rate=1.0)
SHARES = st.floats(0, 1) | st.sampled_from([0.0, 1.0])


def batch(count: int, height: int = 7, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose pixels are all different, and targets of as many classes as images."""
    return torch.arange(count * 2 * height * width).reshape(count, 2, height, width).float(), torch.eye(count)


def test_nothing_asked_for() -> None:
    """Breaks if a recipe without mixing trains on mixed or copied batches."""
    images, targets = batch(4)
    assert mixed(images, targets, STEP, random.Random(0)) == (images, targets)


@given(st.integers(1, 6), SHARES, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_mixup_is_the_formula(count: int, share: float, seed: int) -> None:
    """Breaks if a bit differs from share * image + (1 - share) * partner in float32, or images and targets mix differently."""
    images, targets = batch(count)
    found, labels = mixup(images, targets, share, random.Random(seed))
    kept = np.float32(share)
    for index in range(count):
        for values, result in ((images.numpy(), found), (targets.numpy(), labels)):
            expected = values[index] * kept + values[index - 1] * (np.float32(1) - kept)
            assert result[index].numpy().tobytes() == expected.tobytes()
    # share and 1 - share, which float32 rounds by at most 2**-25, add up to 1 again: 1's neighbours are 2**-24 and farther.
    assert (labels.sum(1) == 1).all()


@given(st.integers(2, 5), st.integers(1, 12), st.integers(1, 12), SHARES, st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_cutmix_pixel_by_pixel(count: int, height: int, width: int, share: float, seed: int) -> None:
    """Breaks if a pixel is from neither image or another place, or a target does not have the share of the pixels."""
    images, targets = batch(count, height, width)
    given = images.clone()
    found, labels = cutmix(images, targets, share, random.Random(seed))
    assert torch.equal(images, given)
    partners = given[torch.arange(count) - 1]
    replaced = found == partners
    assert torch.equal(torch.where(replaced, partners, given), found)
    mask = replaced[0, 0]
    assert (replaced == mask).all()
    area = int(mask.sum())
    rows, columns = mask.any(1), mask.any(0)
    assert torch.equal(mask, rows[:, None] & columns[None])
    for line in (rows, columns):
        assert (line.int().diff().abs().sum() <= 2) and line.int().diff().clamp(min=0).sum() <= 1  # one piece
    assert area <= (1 - share) * height * width + 1e-9  # the box is rounded down, and partly outside
    kept = np.float32(1 - area / (height * width))
    for index in range(count):
        assert labels[index, index] == kept and labels[index, index - 1] == np.float32(1) - kept
    assert (labels.sum(1) == 1).all()


def test_share_of_the_box() -> None:
    """Breaks if a box is much smaller than what Mixup's share would be, as when one side is cut twice."""
    images, targets = batch(2, 40, 40)
    areas = [1 - float(cutmix(images, targets, 0.75, random.Random(seed))[1][0, 0]) for seed in range(200)]
    # Boxes of 20 by 20 in 40 by 40 that lie inside have the full quarter; the others less.
    assert max(areas) == 0.25
    # Side 20 around a uniform middle of 40 places: 10 of the first are cut by 5.5 on average, at the other end 9 by 5: the
    # mean side is 20 - (10 * 5.5 + 9 * 5) / 40 = 17.5, the mean area 17.5**2 / 1600 = 0.191; 4 deviations of 0.05 / sqrt(200).
    assert abs(np.mean(areas) - 0.191) < 0.015


@pytest.mark.parametrize(("mixups", "cutmixes"), [(0.4, 0.0), (0.0, 0.4), (0.4, 0.4)])
def test_which_of_both(mixups: float, cutmixes: float) -> None:
    """Breaks if a recipe with one of them gets the other, or one with both always gets the same."""
    step = replace(STEP, mixup=mixups, cutmix=cutmixes)
    images, targets = batch(4, 60, 60)
    drawn = {"mixup": 0, "cutmix": 0}
    for seed in range(60):
        found, labels = mixed(images, targets, step, random.Random(seed))
        assert (labels.sum(1) == 1).all()
        # The first draw is the choice where there is one.
        draws = random.Random(seed)
        kinds = [mix for mix, alpha in ((mixup, mixups), (cutmix, cutmixes)) if alpha]
        mix = draws.choice(kinds)
        drawn[mix.__name__] += 1
        expected = mix(images, targets, draws.betavariate(0.4, 0.4), draws)
        assert torch.equal(found, expected[0]) and torch.equal(labels, expected[1])
    # With both, 60 fair draws: within 4 deviations, 4 * sqrt(60) / 2 = 15.5, of 30.
    assert [kind for kind, alpha in (("mixup", mixups), ("cutmix", cutmixes)) if alpha] == [
        kind for kind, count in drawn.items() if count > 14
    ]


def test_shares_are_beta_distributed() -> None:
    """Breaks if lambda is drawn from another distribution than Beta(alpha, alpha)."""
    images, targets = batch(2)
    draws = random.Random(0)
    for alpha in (0.2, 1.0):
        step = replace(STEP, mixup=alpha)
        shares = np.array([float(mixed(images, targets, step, draws)[1][0, 0]) for _ in range(1500)])
        # Mean 1/2 and variance 1 / (4 (2 alpha + 1)); 4 standard errors of the mean are at most 4 * 0.5 / sqrt(1500) = 0.052, and
        # of the variance, whose terms (share - 1/2)**2 lie between 0 and 1/4 and so deviate by at most 1/8, 0.013.
        assert abs(shares.mean() - 0.5) < 0.052
        assert abs(np.mean((shares - 0.5) ** 2) - 1 / (4 * (2 * alpha + 1))) < 0.013
