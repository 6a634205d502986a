"""Blocks shared by ReActNet and BCDNet; attribute names are those of the authors' state dicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, LearnableBias


class FirstConv(nn.Module):
    """The real-valued stem of ReActNet-A and BCDNet: 3x3 convolution of stride 2, then BN."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x))


class DataDependentThreshold(nn.Module):
    """BCDNet-B's threshold beta and output bias gamma, computed from the tensor that is binarised (Eqs 9 to 13).

    alpha = w1(mean over H and W of x), beta = w2(alpha), gamma = w3(alpha), with a quarter of the channels in alpha.
    Returns x - beta, (N, C, H, W), whose sign is taken next, and gamma, (N, out_channels, 1, 1), which is added to the
    convolution's output before its BN.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(in_channels, in_channels // 4)
        self.w2 = nn.Linear(in_channels // 4, in_channels)
        self.w3 = nn.Linear(in_channels // 4, out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.w1(x.mean(dim=(2, 3)))
        beta = self.w2(alpha).unsqueeze(-1).unsqueeze(-1)
        gamma = self.w3(alpha).unsqueeze(-1).unsqueeze(-1)
        return x - beta, gamma

    @torch.no_grad()
    def shift(self, amount: Tensor) -> None:
        """Change the parameters so that channel c of x - beta grows by ``amount[c]``."""
        self.w2.bias.sub_(amount)


class ResidualBlock(nn.Module):
    """Threshold, sign, one binary convolution, BN, + shortcut, RPReLU.

    With 3x3 kernels this is the ResNet-18 block of ReActNet (two of them stand for one of ResNet's); with 1x1 kernels
    and equal widths it is BCDNet's PointBlock. ``data_dependent`` replaces the threshold as in BCDNet-B.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, data_dependent: bool = False
    ) -> None:
        super().__init__()
        if data_dependent:
            self.emb: DataDependentThreshold | None = DataDependentThreshold(in_channels, out_channels)
        else:
            self.emb = None
            self.move0 = LearnableBias(in_channels)
        self.binary_activation = BinaryActivation()
        self.binary_conv = BinaryConv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(2, stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.move1 = LearnableBias(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.move2 = LearnableBias(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.emb is None:
            y = self.binary_conv(self.binary_activation(self.move0(x)))
        else:
            shifted, gamma = self.emb(x)
            y = self.binary_conv(self.binary_activation(shifted)) + gamma
        y = self.bn1(y) + (x if self.downsample is None else self.downsample(x))
        return self.move2(self.prelu(self.move1(y)))


class MobileBlock(nn.Module):
    """ReActNet-A's block: a binary 3x3 convolution, then a binary 1x1 one, each with BN, shortcut and RPReLU.

    Where the width doubles, two 1x1 convolutions of the same bits each keep a shortcut and are concatenated.
    ``convolution`` is the class of the binary layers; ``data_dependent`` replaces both thresholds as in BCDNet-B.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        convolution: type[BinaryConv2d] = BinaryConv2d,
        data_dependent: bool = False,
    ) -> None:
        super().__init__()
        self.widens = out_channels != in_channels
        self.emb1: DataDependentThreshold | None = None
        self.emb2: DataDependentThreshold | None = None
        if data_dependent:
            self.emb1 = DataDependentThreshold(in_channels, in_channels)
            self.emb2 = DataDependentThreshold(in_channels, out_channels)
        else:
            self.move11 = LearnableBias(in_channels)
            self.move21 = LearnableBias(in_channels)
        self.binary_activation1 = BinaryActivation()
        self.binary_3x3 = convolution(in_channels, in_channels, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pooling = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.move12 = LearnableBias(in_channels)
        self.prelu1 = nn.PReLU(in_channels)
        self.move13 = LearnableBias(in_channels)

        self.binary_activation2 = BinaryActivation()
        if self.widens:
            self.binary_pw_down1 = convolution(in_channels, in_channels)
            self.binary_pw_down2 = convolution(in_channels, in_channels)
            self.bn2_1 = nn.BatchNorm2d(in_channels)
            self.bn2_2 = nn.BatchNorm2d(in_channels)
        else:
            self.binary_pw = convolution(in_channels, out_channels)
            self.bn2 = nn.BatchNorm2d(out_channels)
        self.move22 = LearnableBias(out_channels)
        self.prelu2 = nn.PReLU(out_channels)
        self.move23 = LearnableBias(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.emb1 is None:
            y = self.binary_3x3(self.binary_activation1(self.move11(x)))
        else:
            shifted, gamma = self.emb1(x)
            y = self.binary_3x3(self.binary_activation1(shifted)) + gamma
        x = self.move13(self.prelu1(self.move12(self.bn1(y) + self.pooling(x))))
        return self.move23(self.prelu2(self.move22(self._pointwise(x))))

    def _pointwise(self, x: Tensor) -> Tensor:
        gamma: Tensor | None = None
        if self.emb2 is None:
            shifted = self.move21(x)
        else:
            shifted, gamma = self.emb2(x)
        bits = self.binary_activation2(shifted)
        if not self.widens:
            y = self.binary_pw(bits)
            return self.bn2(y if gamma is None else y + gamma) + x
        first, second = self.binary_pw_down1(bits), self.binary_pw_down2(bits)
        if gamma is not None:
            first_gamma, second_gamma = gamma.chunk(2, dim=1)
            first, second = first + first_gamma, second + second_gamma
        return torch.cat([self.bn2_1(first) + x, self.bn2_2(second) + x], dim=1)


class ShiftBlock(nn.Module):
    """BCDNet's MLP layer: the same bits in place, rolled by 1 and rolled by 3, each through its own binary 1x1 layer.

    The three sums, each with its own scale, are added, then BN, + shortcut, RPReLU. The channels are a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.move0 = LearnableBias(channels)
        self.binary_activation = BinaryActivation()
        self.binary_conv = BinaryConv2d(channels, channels)
        self.binary_conv1 = BinaryConv2d(channels, channels)
        self.binary_conv2 = BinaryConv2d(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.move1 = LearnableBias(channels)
        self.prelu = nn.PReLU(channels)
        self.move2 = LearnableBias(channels)

    def forward(self, x: Tensor) -> Tensor:
        bits = self.binary_activation(self.move0(x))
        near = self.binary_conv1(roll_quarters(bits, 1))
        far = self.binary_conv2(roll_quarters(bits, 3))
        y = self.bn1(self.binary_conv(bits) + near + far) + x
        return self.move2(self.prelu(self.move1(y)))


def roll_quarters(x: Tensor, step: int) -> Tensor:
    """Roll the four quarters of the channels of x (N, C, H, W) down, up, right and left by ``step``, wrapping."""
    down, up, right, left = x.chunk(4, dim=1)
    rolled = [
        torch.roll(down, step, dims=2),
        torch.roll(up, -step, dims=2),
        torch.roll(right, step, dims=3),
        torch.roll(left, -step, dims=3),
    ]
    return torch.cat(rolled, dim=1)


def global_average(x: Tensor) -> Tensor:
    """Mean over H and W: (N, C, H, W) to (N, C)."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)
