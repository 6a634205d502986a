"""Seeded random parameters that leave nothing degenerate: negative BN weights and PReLU slopes, thresholds off zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnn_deploy.models.bimlp_layers import WaveBlock
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear, ChannelPReLU, LearnableBias


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Replace every parameter of a model of this package; the same seed gives the same parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, deviation: float) -> None:
        tensor.normal_(0, deviation, generator=generator)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.uniform_(low, high, generator=generator)

    for module in model.modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            weight = module.real_weight() if isinstance(module, BinaryConv2d) else module.weight
            normal(weight, 0.1)
            # Scales that differ between output channels, or exchanging two of them would go unnoticed.
            factor = torch.empty(weight.shape[0], *[1] * (weight.dim() - 1))
            uniform(factor, 0.5, 1.5)
            weight.mul_(factor)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            uniform(module.weight, 0.5, 1.5)
            negative = torch.empty_like(module.weight)
            uniform(negative, 0, 1)
            module.weight[negative < 0.1] *= -1
            normal(module.bias, 0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            normal(module.weight, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                normal(module.bias, 0.1)
        elif isinstance(module, nn.PReLU):
            uniform(module.weight, -0.1, 0.5)
        elif isinstance(module, ChannelPReLU):
            uniform(module.w, -0.1, 0.5)
        elif isinstance(module, LearnableBias):
            normal(module.bias, 0.3)
        elif isinstance(module, WaveBlock):
            uniform(module.weight, 0.2, 0.4)
