"""The loss against its formula in float64, its two heads, and numbers at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bnn_deploy.errors import InputError
from bnn_deploy.training.losses import Loss, divergence, step_loss

Array = NDArray[np.float64]


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def cross_entropy_of(logits: Array, targets: Array, smoothing: float) -> float:
    smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
    return float(-(smooth * log_softmax(logits)).sum(axis=1).mean())


def divergence_of(logits: Array, teacher: Array) -> float:
    wanted = log_softmax(teacher)
    return float((np.exp(wanted) * (wanted - log_softmax(logits))).sum(axis=1).mean())


def log_error(width: float, classes: int, unit: float) -> float:
    """Bound on the error of a log-probability, for logits that are at most ``width`` apart.

    In ``x - max - log(sum(exp(x - max)))`` the first difference has an error of width * unit, each exponential then a
    relative one of (width + 2) * unit, their sum (width + 2 + classes) * unit, which is the absolute one of its logarithm,
    to which that adds its own rounding, log(classes) * unit, and the last difference (width + log(classes)) * unit.
    """
    return (3 * width + 2 * math.log(classes) + classes + 2) * unit


def loss_error(width: float, images: int, classes: int, unit: float) -> float:
    """Bound on the error of each of CE, KL and their weighted sum, to first order in ``unit``; see ``log_error``.

    A log-probability is at most ``largest`` in magnitude. CE: a smoothed target has a relative error of 3 units, a product
    one more, sums over classes and images and the mean classes + images + 1 more. KL: a probability has a relative error
    of one log error and 2 units, and multiplies a difference of at most 2 * largest with an error of two log errors; then
    the same sums. The weighted sum adds 4 units of the larger term.
    """
    largest = width + math.log(classes)
    log = log_error(width, classes, unit)
    sums = (classes + images + 5) * unit
    cross_entropy = log + sums * largest
    difference = 2 * log + (log + 2 * unit + sums) * 2 * largest
    # 1%: the products of these errors.
    return 1.01 * (max(cross_entropy, difference) + 4 * unit * 2 * largest)


def unit_of(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def mixed_targets(generator: torch.Generator, images: int, classes: int) -> Tensor:
    one = F.one_hot(torch.randint(classes, (images,), generator=generator), classes)
    other = F.one_hot(torch.randint(classes, (images,), generator=generator), classes)
    share = torch.rand(images, 1, generator=generator)
    return share * one + (1 - share) * other


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 9),
    classes=st.integers(2, 12),
    scale=st.sampled_from([0.01, 1.0, 20.0]),
    distillation=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_formula(
    seed: int, images: int, classes: int, scale: float, distillation: float, smoothing: float, dtype: torch.dtype
) -> None:
    """Breaks if what is minimised is not a KL(teacher || student) + (1 - a) CE, means over the batch."""
    generator = torch.Generator().manual_seed(seed)
    logits, teacher = (scale * torch.randn(images, classes, generator=generator, dtype=dtype) for _ in range(2))
    targets = mixed_targets(generator, images, classes)
    loss = step_loss(logits, targets, teacher, distillation=distillation, label_smoothing=smoothing)

    student64, teacher64, targets64 = (each.double().numpy() for each in (logits, teacher, targets))
    ce = cross_entropy_of(student64, targets64, smoothing)
    kl = divergence_of(student64, teacher64)
    width = max(float(np.ptp(each, axis=1).max()) for each in (student64, teacher64))
    # That of the loss, and that of the formula, which is float64 too.
    error = sum(loss_error(width, images, classes, unit) for unit in (unit_of(dtype), unit_of(torch.float64)))
    assert loss.divergence is not None
    assert abs(loss.cross_entropy.item() - ce) <= error
    assert abs(loss.divergence.item() - kl) <= error
    assert abs(loss.total.item() - (distillation * kl + (1 - distillation) * ce)) <= error


def test_gradient_is_that_of_the_authors_form() -> None:
    """Breaks if the divergence is not what ReActNet's and BCDNet's code minimise, up to the teacher's entropy."""
    generator = torch.Generator().manual_seed(1)
    logits, teacher = (3 * torch.randn(6, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    (ours,) = torch.autograd.grad(divergence(logits, teacher), logits)
    (theirs,) = torch.autograd.grad(-(teacher.softmax(1) * F.log_softmax(logits, 1)).sum(1).mean(), logits)
    width = float(max(each.amax(1).sub(each.amin(1)).max() for each in (logits.detach(), teacher)))
    # Both are (student - teacher) / 6 of probabilities, which have a relative error of one log error and 2 units; summing
    # the teacher's, which the chain rule does, has 10 units more. Two ways to compute it: twice that.
    unit = unit_of(torch.float64)
    assert float((ours - theirs).abs().max()) <= 2 * 1.01 * 2 * (log_error(width, 10, unit) + 12 * unit) / 6
    exact = (logits.detach().softmax(1) - teacher.softmax(1)) / 6
    assert float((ours - exact).abs().max()) <= 2 * 1.01 * 2 * (log_error(width, 10, unit) + 12 * unit) / 6
    assert float(ours.abs().max()) > 0.01


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Class head, distillation head, targets and teacher, all (5, 4)."""
    generator = torch.Generator().manual_seed(2)
    one, two, teacher = (torch.randn(5, 4, generator=generator) for _ in range(3))
    return one.requires_grad_(), two.requires_grad_(), mixed_targets(generator, 5, 4), teacher


def gradients(loss: Loss, *inputs: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss.total, inputs, allow_unused=True))


def test_weights_of_zero_and_one() -> None:
    """Breaks if a term that has no weight still takes part, so that its infinity would become a NaN."""
    logits, _, targets, teacher = batch()
    alone = step_loss(logits, targets, None, distillation=0.9, label_smoothing=0.1)
    none = step_loss(logits, targets, teacher, distillation=0, label_smoothing=0.1)
    only = step_loss(logits, targets, teacher, distillation=1, label_smoothing=0.1)
    assert alone.divergence is None
    assert torch.equal(alone.total, none.total) and torch.equal(alone.total, alone.cross_entropy)
    assert none.divergence is not None and torch.equal(only.total, none.divergence)
    assert torch.equal(only.total, divergence(logits, teacher))
    infinite = torch.full_like(teacher, math.inf)
    assert step_loss(logits, targets, infinite, distillation=0, label_smoothing=0.0).total.isfinite()
    assert step_loss(logits, targets * math.inf, teacher, distillation=1, label_smoothing=0.0).total.isfinite()


def test_one_hot_targets_are_labels() -> None:
    """Breaks if one-hot targets give another loss than the labels they stand for, smoothed or not."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (7,), generator=generator)
    width = float((logits.amax(1) - logits.amin(1)).max())
    for smoothing in (0.0, 0.1):
        loss = step_loss(logits, F.one_hot(labels, 5).float(), None, distillation=0.9, label_smoothing=smoothing)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Two evaluations, each with this error.
        assert abs(loss.total.item() - expected.item()) <= 2 * loss_error(width, 7, 5, unit_of(torch.float64))


def test_two_heads_each_have_their_term() -> None:
    """Breaks if BCDNet's class head is taught by the teacher, or its distillation head by the labels."""
    one, two, targets, teacher = batch()
    loss = step_loss((one, two), targets, teacher, distillation=0.5, label_smoothing=0.1)
    ce = step_loss(one, targets, None, distillation=0.5, label_smoothing=0.1)
    kl = step_loss(two, targets, teacher, distillation=1, label_smoothing=0.1)
    # Halving is exact, so this is BCDNet's (CE + KL) / 2 bit for bit.
    assert torch.equal(loss.total, ce.total / 2 + kl.total / 2)
    found = gradients(loss, one, two)
    for gradient, part in zip(found, (gradients(ce, one)[0], gradients(kl, two)[0]), strict=True):
        assert gradient is not None and part is not None
        assert torch.equal(gradient, part / 2)


@pytest.mark.parametrize(("taught", "distillation"), [(False, 0.9), (True, 0.0), (True, 1.0)])
def test_no_head_is_left_as_initialised(taught: bool, distillation: float) -> None:
    """Breaks if a head gets no gradient: the deployed mean of both would keep its random weights, and DDP would stop."""
    one, two, targets, teacher = batch()
    known = teacher if taught else None
    loss = step_loss((one, two), targets, known, distillation=distillation, label_smoothing=0.0)
    mean = step_loss((one + two) / 2, targets, known, distillation=distillation, label_smoothing=0.0)
    assert torch.equal(loss.total, mean.total)
    for gradient in gradients(loss, one, two):
        assert gradient is not None and bool(gradient.abs().amax(dim=1).gt(0).all())


def test_extreme_logits_stay_finite() -> None:
    """Breaks if a probability that rounds to 0 makes the loss or its gradient infinite or NaN."""
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [-1e4, 1e4, 0.0]])
    targets = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    loss = step_loss(logits, targets, teacher, distillation=0.5, label_smoothing=0.0)
    # The first image costs 20000 in either term and the second nothing; all of it is exact in float32.
    assert loss.cross_entropy.item() == 10000 and loss.divergence is not None and loss.divergence.item() == 10000
    assert loss.total.item() == 10000
    (gradient,) = gradients(loss, logits)
    assert gradient is not None and gradient.tolist() == [[0.5, -0.5, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    """Breaks if mixed precision computes the loss itself in 8 or 11 bits."""
    one, two, targets, teacher = (each.detach() for each in batch())
    low = [each.to(dtype) for each in (one, two, teacher)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = step_loss((low[0], low[1]), targets, low[2], distillation=0.9, label_smoothing=0.1)
    high = [each.float() for each in low]
    expected = step_loss((high[0], high[1]), targets, high[2], distillation=0.9, label_smoothing=0.1)
    assert loss.total.dtype == torch.float32
    assert torch.equal(loss.total, expected.total) and torch.equal(loss.cross_entropy, expected.cross_entropy)


def test_nothing_flows_into_the_teacher() -> None:
    """Breaks if the teacher is trained too, or if the numbers for the log keep every batch's graph alive."""
    logits, _, targets, teacher = batch()
    teacher.requires_grad_()
    loss = step_loss(logits, targets, teacher, distillation=0.9, label_smoothing=0.0)
    assert gradients(loss, logits, teacher)[1] is None
    assert loss.divergence is not None
    assert not loss.cross_entropy.requires_grad and not loss.divergence.requires_grad


@pytest.mark.parametrize("shape", [(5, 1), (1, 4), (5, 5)])
def test_teacher_of_other_classes(shape: tuple[int, int]) -> None:
    """Breaks if a teacher with other classes is stretched to the student's by broadcasting, and teaches nonsense."""
    logits, _, targets, _ = batch()
    with pytest.raises(InputError, match=r"teacher's logits are \(\d, \d\) and the student's \(5, 4\)"):
        step_loss(logits, targets, torch.zeros(shape), distillation=0.9, label_smoothing=0.0)
