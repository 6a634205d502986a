"""Mixup and CutMix: each image of a batch is mixed with the one before it, and its target with that one's.

The partner is the batch rolled by one, as torchvision has it: with the batch flipped, as timm has it, partners would come in
pairs, and the middle image of an odd batch would be mixed with itself. With both on, each batch gets one of them at
random, as in both libraries.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bnn_deploy.training.step import Step


def mixed(
    images: torch.Tensor, targets: torch.Tensor, step: Step, draws: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch as ``step`` mixes it; the very tensors given if it does not.

    Args:
        images: float32 (n, channels, height, width).
        targets: float32 (n, classes), rows sum to 1, and do so afterwards.
        draws: of this batch.
    """
    kinds = [(mixup, step.mixup), (cutmix, step.cutmix)]
    wanted = [(mix, alpha) for mix, alpha in kinds if alpha > 0]
    if not wanted:
        return images, targets
    mix, alpha = draws.choice(wanted)
    return mix(images, targets, draws.betavariate(alpha, alpha), draws)


def mixup(
    images: torch.Tensor, targets: torch.Tensor, share: float, draws: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """``share`` of every image plus 1 - ``share`` of its partner, in float32 (Zhang et al., arXiv:1710.09412)."""
    return _blend(images, share), _blend(targets, share)


def cutmix(
    images: torch.Tensor, targets: torch.Tensor, share: float, draws: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of the partner replaces that of the image (Yun et al., arXiv:1905.04899).

    Its sides are sqrt(1 - ``share``) of the image's and its middle is anywhere in it, so part of the box may lie outside;
    targets are mixed by the area that was replaced in fact.
    """
    height, width = images.shape[-2:]
    top, bottom = _side(height, share, draws)
    left, right = _side(width, share, draws)
    images = images.clone(memory_format=torch.contiguous_format)
    rolled = images.roll(1, 0)
    images[..., top:bottom, left:right] = rolled[..., top:bottom, left:right]
    return images, _blend(targets, 1 - (bottom - top) * (right - left) / (height * width))


def _side(length: int, share: float, draws: random.Random) -> tuple[int, int]:
    middle, half = draws.randrange(length), int(length * math.sqrt(1 - share) / 2)
    return max(middle - half, 0), min(middle + half, length)


def _blend(values: torch.Tensor, share: float) -> torch.Tensor:
    kept = torch.tensor(share, dtype=values.dtype)
    return values * kept + values.roll(1, 0) * (1 - kept)
