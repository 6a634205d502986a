"""A network with every binary layer and every awkward thing an exporter meets, small enough to export in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    FlatBinaryConv2d,
    LearnableBias,
    RPReLU,
    TernaryActivation,
)

INPUT_SHAPE = (3, 9, 8)


class Mixer(nn.Module):
    """Signs rolled, cut and joined, a strided grouped convolution without scale, then a tap-scaled one of its result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.move = LearnableBias(channels)
        self.sign = BinaryActivation()
        self.flat = FlatBinaryConv2d(channels, channels, 3, padding=1)
        # Named like values of the written file.
        self.v0 = BinaryConv2d(channels, 2 * channels, (3, 1), stride=(2, 1), padding=(1, 0), groups=2, scaling="none")
        self.norm = nn.BatchNorm2d(channels)
        self.ternary = TernaryActivation()
        self.taps = BinaryConv2d(2 * channels, channels, (1, 5), padding=(0, 2), groups=channels, scaling="tap")
        self.group_norm = nn.GroupNorm(1, channels)
        self.act = RPReLU(channels)
        self.weight = nn.Parameter(torch.tensor([0.5, 0.25]))

    def forward(self, x: Tensor) -> Tensor:
        signs = self.sign(self.move(x))
        first, second = signs.chunk(2, dim=1)
        signs = torch.cat([torch.roll(second, 1, dims=2), first], dim=1)
        x = self.norm(self.flat(signs)) + x
        # A BatchNorm that is called twice must keep its statistics.
        x = self.norm(x)
        wide = self.v0(signs) * 0.13
        y = self.act(self.group_norm(self.taps(self.ternary(wide))))
        return self.weight[0] * y + (1 - self.weight[1]) * F.max_pool2d(x, 3, stride=(2, 1), padding=1)


class SmallNetwork(nn.Module):
    """(N, 3, 9, 8) to (N, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv2d(3, 10, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(10)
        self.body = nn.Sequential(Mixer(10))
        self.sign = BinaryActivation()
        self.linear = BinaryLinear(10, 12)
        self.logits = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.bn(self.input(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.logits(self.linear(self.sign(x)))


def small_network(seed: int = 0) -> SmallNetwork:
    """With random parameters and statistics, negative BN weights among them, in evaluation mode."""
    torch.manual_seed(seed)
    model = SmallNetwork()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.normal_()
                module.bias.normal_()
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
            if isinstance(module, LearnableBias):
                module.bias.normal_(std=0.3)
    return model.eval()


def smallest_margin(model: nn.Module, x: Tensor) -> tuple[Tensor, float]:
    """The model's output, and the least distance of any activation's input from its thresholds."""
    margins: list[float] = []

    def measure(module: nn.Module, args: tuple[Tensor]) -> None:
        margins.extend(float((args[0] - at).abs().min()) for at in module.boundaries)

    kinds = (BinaryActivation, TernaryActivation)
    handles = [m.register_forward_pre_hook(measure) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        output = model(x)
    for handle in handles:
        handle.remove()
    return output, min(margins)
