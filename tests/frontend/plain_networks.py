"""Binary networks as people write them in PyTorch, each in a style of its own; nothing here imports bnn_deploy.

``activations`` of each lists the modules whose input is binarised, so that tests can look for inputs with a margin.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PolynomialSign(nn.Module):
    """torch.sign forward; its gradient is that of a piecewise polynomial, which stays in the graph and cancels."""

    def forward(self, x: Tensor) -> Tensor:
        below, negative, inside = (x < -1).float(), (x < 0).float(), (x < 1).float()
        smooth = -below + (x * x + 2 * x) * (1 - below)
        smooth = smooth * negative + (2 * x - x * x) * (1 - negative)
        smooth = smooth * inside + (1 - inside)
        return torch.sign(x).detach() - smooth.detach() + smooth


class IdentitySign(nn.Module):
    """x >= 0 gives +1; the straight-through estimator adds x and takes it away again."""

    def forward(self, x: Tensor) -> Tensor:
        hard = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
        return x + (hard - x).detach()


class RoundedClip(nn.Module):
    """-1, 0 and +1: rint(clip(x, -1, 1))."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, -1.0, 1.0))


class CastSign(nn.Module):
    """2 (x > 0) - 1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float() * 2 - 1


ACTIVATIONS = (PolynomialSign, IdentitySign, RoundedClip, CastSign)


class ScaledSignConv(nn.Module):
    """Real weights; the forward pass computes mean magnitude times sign, with a straight-through leftover."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, kernel, kernel) * 0.1)
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        clipped = self.weight.clamp(-1, 1)
        weight = (scale * torch.sign(self.weight)).detach() - clipped.detach() + clipped
        return F.conv2d(x, weight, None, self.stride, self.padding, 1, self.groups)


class ScaledSignLinear(nn.Module):
    """As ScaledSignConv, without the leftover."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.sign() * self.weight.abs().mean(dim=1, keepdim=True)
        return F.linear(x, weight)


class Bias(nn.Module):
    """One number per channel, added as expand_as does it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, channels, 1, 1) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.expand_as(x)


class ShortcutBlock(nn.Module):
    """bias, sign, binary 3x3, BN, shortcut, PReLU; then the same bits rolled in quarters, two 1x1 branches summed."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.before = Bias(channels)
        self.activation = activation
        self.spatial = ScaledSignConv(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)
        self.between = Bias(channels)
        self.point = ScaledSignConv(channels, channels, 1)
        self.rolled = ScaledSignConv(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.spatial(self.activation(self.before(x)))) + x)
        bits = self.activation(self.between(x))
        first, second, third, fourth = bits.chunk(4, dim=1)
        moved = torch.cat(
            [first.roll(1, 2), second.roll(-1, 2), third.roll(1, 3), fourth.roll(-1, 3)],
            dim=1,
        )
        return self.norm2(self.point(bits) + self.rolled(moved)) + x


class PlainCNN(nn.Module):
    """(N, 3, 16, 16) to (N, 10): float stem, two blocks, a strided binary layer, two averaged heads."""

    shape = (3, 16, 16)
    binary_layers = 7

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
        self.blocks = nn.ModuleList([ShortcutBlock(32, activation()) for _ in range(2)])
        self.activation = activation()
        self.down = ScaledSignConv(32, 64, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head, self.teacher_head = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(self.down(self.activation(x)))
        x = self.pool(x)
        x = x.view(x.size(0), -1)
        return (self.head(x) + self.teacher_head(x)) / 2


class PlainMLP(nn.Module):
    """(N, 1, 8, 8) to (N, 10): a float layer, two binary ones with BN, a float head."""

    shape = (1, 8, 8)
    binary_layers = 2

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 96),
            nn.BatchNorm1d(96),
            activation(),
            ScaledSignLinear(96, 128),
            nn.BatchNorm1d(128),
            activation(),
            ScaledSignLinear(128, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class RealMLP(nn.Module):
    """Nothing binary in it."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 48),
            nn.ReLU(),
            nn.Linear(48, 24),
            nn.ReLU(),
            nn.Linear(24, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class TwoBitQuantiser(nn.Module):
    """0, 1/3, 2/3 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, 0.0, 1.0) * 3) / 3


class MixedNetwork(nn.Module):
    """(N, 1, 8, 8) to (N, 10): one binary layer, one that reads two-bit values, one with three-valued weights."""

    shape = (1, 8, 8)
    binary_layers = 1

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.sign = IdentitySign()
        self.binary = ScaledSignLinear(64, 64)
        self.norm = nn.BatchNorm1d(64)
        self.two_bits = TwoBitQuantiser()
        self.quantised = ScaledSignLinear(64, 64)
        self.norm2 = nn.BatchNorm1d(64)
        self.sign2 = IdentitySign()
        self.ternary = nn.Linear(64, 10, bias=False)
        with torch.no_grad():
            self.ternary.weight.copy_(torch.round(torch.clamp(self.ternary.weight * 16, -1, 1)) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.binary(self.sign(self.first(x.flatten(1)))))
        x = self.norm2(self.quantised(self.two_bits(x)))
        return self.ternary(self.sign2(x))


def randomised(model: nn.Module, seed: int) -> nn.Module:
    """``model`` in evaluation mode with the statistics and slopes of a network that has seen training."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 4, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, -1.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0, 0.3, generator=generator)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.2, 0.6, generator=generator)
    return model.eval()


def margin(model: nn.Module, images: Tensor) -> float:
    """The smallest distance of a binarised value from a threshold, relative to its layer's root mean square."""
    smallest = float("inf")

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal smallest
        values = inputs[0]
        boundaries = (-0.5, 0.5) if isinstance(module, RoundedClip) else (0.0,)
        for boundary in boundaries:
            distance = (values - boundary).abs().min() / values.square().mean().sqrt()
            smallest = min(smallest, float(distance))

    hooks = [module.register_forward_pre_hook(look) for module in model.modules() if isinstance(module, ACTIVATIONS)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return smallest


def images_with_margin(model: nn.Module, shape: tuple[int, ...], count: int, wanted: float) -> Tensor:
    """Seeded normal images on which no binarised value is nearer to its threshold than ``wanted``."""
    found = []
    for seed in range(2000):
        image = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
        if margin(model, image) >= wanted:
            found.append(image)
            if len(found) == count:
                return torch.cat(found)
    raise AssertionError(f"only {len(found)} of {count} images keep a margin of {wanted}")
