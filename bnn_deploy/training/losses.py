"""What a training step minimises: a * KL(teacher || student) + (1 - a) * cross-entropy (BiMLP Eq. 13)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bnn_deploy.errors import InputError


@dataclass(frozen=True)
class Loss:
    """Scalars, each a mean over the batch in nats, float32 or float64; only ``total`` carries a gradient.

    ``divergence`` is None without a teacher.
    """

    total: Tensor
    cross_entropy: Tensor
    divergence: Tensor | None


def step_loss(
    outputs: Tensor | tuple[Tensor, Tensor],
    targets: Tensor,
    teacher_logits: Tensor | None,
    *,
    distillation: float,
    label_smoothing: float,
) -> Loss:
    """The loss of one batch.

    With two heads, cross-entropy is taken of the class head and the divergence of the distillation head, as in BCDNet's
    code, whose (CE + KL) / 2 is ``distillation`` 0.5. Where only one of the terms counts (no teacher, or a weight of 0
    or 1), both are taken of the heads' mean, which is what the deployed model computes: one head would stay as it was
    initialised otherwise, and that mean with it.

    Args:
        outputs: logits (n, classes) of any float dtype, or those of the class head and of the distillation head.
        targets: (n, classes) probabilities: one-hot rows, or mixed ones (Mixup, CutMix).
        teacher_logits: (n, classes) without gradient, or None; the loss is then the cross-entropy alone.
        distillation: a, the weight of the divergence, 0..1; without meaning when there is no teacher.
        label_smoothing: share of each target that is spread evenly over all classes, 0..1; the teacher's probabilities
            are not smoothed.

    Raises InputError if the teacher's logits have another shape than the student's.
    """
    if isinstance(outputs, Tensor):
        class_logits = divergent_logits = _wide(outputs)
    else:
        class_logits, divergent_logits = (_wide(head) for head in outputs)
        if teacher_logits is None or distillation in (0, 1):
            class_logits = divergent_logits = (class_logits + divergent_logits) / 2

    cross_entropy = F.cross_entropy(class_logits, targets.to(class_logits.dtype), label_smoothing=label_smoothing)
    if teacher_logits is None:
        return Loss(cross_entropy, cross_entropy.detach(), None)
    difference = divergence(divergent_logits, _wide(teacher_logits))
    # No product with a weight of 0: 0 * inf would be NaN.
    if distillation == 0:
        total = cross_entropy
    elif distillation == 1:
        total = difference
    else:
        total = distillation * difference + (1 - distillation) * cross_entropy
    return Loss(total, cross_entropy.detach(), difference.detach())


def divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student), the mean over the batch, of the softmax of both at temperature 1.

    The codes of ReActNet and BCDNet minimise the cross-entropy with the teacher's probabilities instead. That differs by
    the teacher's entropy, in which the student has no part, so the gradient is the same; this one is 0 where they agree.

    Args:
        logits: the student's, (n, classes), float32 or float64.
        teacher_logits: (n, classes); no gradient flows into them.
    """
    if logits.shape != teacher_logits.shape:
        raise InputError(
            f"The teacher's logits are {tuple(teacher_logits.shape)} and the student's {tuple(logits.shape)}, but both "
            "must have as many images and classes; give a teacher trained on the same classes."
        )
    wanted = F.log_softmax(teacher_logits.detach().to(logits.dtype), dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), wanted, reduction="batchmean", log_target=True)


def _wide(logits: Tensor) -> Tensor:
    """Half precision as float32: bfloat16 has 8 bits of mantissa, too few for a logarithm of a sum."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
