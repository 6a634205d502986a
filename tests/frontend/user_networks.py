"""Networks as they are found in repositories and tutorials, with all that stands around their binary layers.

Nothing here imports bnn_deploy. ``NETWORKS`` says of each the shape of its input and how many of its layers are binary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SignFunction(torch.autograd.Function):
    """The straight-through estimator as most repositories write it."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sign(x)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


class Sign(nn.Module):
    threshold = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return SignFunction.apply(x)


class ZeroOrOne(nn.Module):
    """DoReFa's activation of one bit."""

    threshold = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(torch.clamp(x, 0, 1))


class BinaryConv2d(nn.Conv2d):
    """XNOR-Net's weights: mean magnitude times sign."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.sign() * self.weight.abs().mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class BinaryConv1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.sign() * self.weight.abs().mean((1, 2), keepdim=True)
        return F.conv1d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class BinaryLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.sign() * self.weight.abs().mean(1, keepdim=True), self.bias)


class XnorNetwork(nn.Module):
    """Order BN, sign, convolution, pooling; the convolution's result is scaled by the mean magnitude around each pixel (K)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.sign = Sign()
        self.first = BinaryConv2d(32, 32, 3, padding=1, bias=False)
        self.norm2, self.second = nn.BatchNorm2d(32), BinaryConv2d(32, 48, 3, padding=1)
        self.register_buffer("window", torch.full((1, 1, 3, 3), 1 / 9))
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.stem(x)))
        magnitude = F.conv2d(x.abs().mean(1, keepdim=True), self.window, padding=1)
        x = F.max_pool2d(F.relu(self.first(self.sign(x)) * magnitude), 3, 2, 1)
        x = F.avg_pool2d(F.relu(self.second(self.sign(self.norm2(x)))), 8)
        return F.log_softmax(self.head(x.view(x.size(0), -1)), dim=1)


class SqueezeAndExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(channels, 8), nn.ReLU(), nn.Linear(8, channels), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        images, channels = x.shape[:2]
        return x * self.body(F.adaptive_avg_pool2d(x, 1).view(images, channels)).view(images, channels, 1, 1).expand_as(
            x
        )


class ResidualNetwork(nn.Module):
    """Bi-Real shortcuts through average pools, an activation after each sum, ±1 around images, depthwise and grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32))
        self.sign = Sign()
        self.first, self.norm = BinaryConv2d(32, 32, 3, bias=False), nn.GroupNorm(8, 32)
        self.depth, self.norm2 = BinaryConv2d(32, 32, 3, padding=1, groups=32), nn.BatchNorm2d(32, affine=False)
        self.down, self.norm3 = BinaryConv2d(32, 64, 3, 2, 1, groups=2), nn.BatchNorm2d(64)
        self.short = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(32, 64, 1))
        self.excite, self.head = SqueezeAndExcite(64), nn.Conv2d(64, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.hardswish(self.norm(self.first(F.pad(self.sign(x), (1, 1, 1, 1), value=-1.0))) + x)
        x = F.celu(self.norm2(self.depth(self.sign(x - 0.1))) + x, alpha=0.5)
        x = self.excite(self.norm3(self.down(self.sign(x - 0.2))) + self.short(x))
        return self.head(F.adaptive_avg_pool2d(x, 1))


class MovingNetwork(nn.Module):
    """Split, roll, flip, channel shuffle, replicated borders and nearest upsampling between a sign and its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.sign = Sign()
        self.left, self.right = BinaryConv2d(16, 32, 3), BinaryConv2d(16, 32, 1)
        self.mixed, self.norm2 = BinaryConv2d(64, 64, 1, stride=2), nn.BatchNorm2d(64)
        self.up, self.norm3 = BinaryConv2d(64, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.sign(self.norm(self.stem(x))), 16, dim=1)
        left = self.left(F.pad(left.roll(1, 2), (1, 1, 1, 1), mode="replicate"))
        x = torch.cat([left, self.right(right.flip(3))], 1)
        n, c, h, w = x.shape
        x = self.sign(x - 0.01).view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        x = F.interpolate(self.sign(self.norm2(self.mixed(x))), scale_factor=2)
        x = self.norm3(self.up(x))
        x = F.interpolate(F.pad(x, (2, 2, 2, 2), mode="reflect"), size=(11, 13), mode="bilinear", align_corners=False)
        return self.head(F.gelu(x))


class TokenNetwork(nn.Module):
    """Binary linear layers on (B, T, C), along tokens and channels, one as einsum; softmax attention of real values."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32)
        self.sign = Sign()
        self.tokens = BinaryLinear(16, 16)
        self.query, self.key = BinaryLinear(32, 32, bias=False), BinaryLinear(32, 32, bias=False)
        self.value = nn.Parameter(torch.randn(32, 32))
        self.norm2, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.sign(self.norm(x)).transpose(1, 2)).transpose(1, 2)
        bits = self.sign(self.norm2(x))
        query, key = self.query(bits).unflatten(2, (4, 8)), self.key(bits).unflatten(2, (4, 8))
        value = torch.einsum("btc,cd->btd", bits, self.value.sign() * 0.2).unflatten(2, (4, 8))
        weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(8), dim=-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(2)
        return self.head(x + mixed).amax(1)


class KeywordNetwork(nn.Module):
    """Sound: one spatial axis, the {0, 1} activations of DoReFa, the scale of an activation learned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(1, 32, 16, 8), nn.BatchNorm1d(32)
        self.bit, self.sign = ZeroOrOne(), Sign()
        self.first, self.norm2 = BinaryConv1d(32, 32, 3, padding=1), nn.BatchNorm1d(32)
        self.second, self.norm3 = BinaryConv1d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm1d(64)
        self.scale, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.randn(1, 32, 1) * 0.1)
        self.head = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(self.norm(self.stem(x)), 2)
        x = self.norm2(self.first(self.bit(x)))
        x = self.norm3(self.second(self.scale * self.sign((x - self.shift) / self.scale)))
        return torch.softmax(self.head(F.silu(x).mean(-1)), dim=-1)


class BinaryConnectNetwork(nn.Module):
    """Binary weights that read real values, which stay float, before one layer that is binary on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.weights_only = nn.Linear(64, 64), BinaryLinear(64, 64)
        self.norm, self.binary = nn.BatchNorm1d(64), BinaryLinear(64, 64)
        self.sign, self.head = Sign(), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.weights_only(F.relu(self.real(x.flatten(1))))
        return self.head(F.elu(self.binary(self.sign(self.norm(x)))))


NETWORKS: dict[type[nn.Module], tuple[tuple[int, ...], int]] = {
    XnorNetwork: ((3, 16, 16), 2),
    ResidualNetwork: ((3, 16, 16), 3),
    MovingNetwork: ((3, 16, 16), 4),
    TokenNetwork: ((3, 16, 16), 4),
    KeywordNetwork: ((1, 520), 2),
    BinaryConnectNetwork: ((1, 8, 8), 1),
}
