"""The parts of BiMLP (Xu et al., NeurIPS 2022), named as in the authors' MindSpore code.

The paper and the released code differ; ``Variant`` holds every difference, so that each layer is written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    LearnableBias,
    RPReLU,
    Scaling,
    TernaryActivation,
)

SPATIAL_KERNEL = 7


@dataclass(frozen=True)
class Variant:
    """What differs between BiMLP's paper and its released code.

    ternary: activations are {-1, 0, +1} instead of signs.
    spatial_scaling: weight scale of the 1x7 and 7x1 layers; the 1x1 layers have one scale per channel either way.
    adjacent: the uni-shortcut averages adjacent channels x[::n], x[1::n] ... instead of contiguous chunks (Eq. 12).
    group_norm: GroupNorm(1) instead of BN in the stem, the downsamplings, norm1, norm2 and the final norm.
    """

    ternary: bool = False
    spatial_scaling: Scaling = "channel"
    adjacent: bool = False
    group_norm: bool = False

    def activation(self) -> nn.Module:
        return TernaryActivation() if self.ternary else BinaryActivation("clip")

    def norm(self, channels: int) -> nn.Module:
        return nn.GroupNorm(1, channels) if self.group_norm else nn.BatchNorm2d(channels)

    def average(self, x: Tensor, n: int) -> Tensor:
        """The uni-shortcut from n c to c channels: means of n channels; (N, n c, H, W) to (N, c, H, W)."""
        channels = x.shape[1]
        if self.adjacent:
            parts = [x[:, first::n] for first in range(n)]
        else:
            parts = [x[:, first : first + channels // n] for first in range(0, channels, channels // n)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total / n


def tile(x: Tensor, n: int) -> Tensor:
    """The uni-shortcut from c to n c channels: n copies, one after another."""
    return torch.cat([x] * n, dim=1)


def pointwise(in_channels: int, out_channels: int) -> BinaryConv2d:
    """A binary fully connected layer over the channels of each position."""
    return BinaryConv2d(in_channels, out_channels)


def along_width(in_channels: int, out_channels: int, scaling: Scaling) -> BinaryConv2d:
    """A binary 1x7 layer with one group for each output channel."""
    return BinaryConv2d(
        in_channels, out_channels, (1, SPATIAL_KERNEL), padding=(0, 3), groups=out_channels, scaling=scaling
    )


def along_height(in_channels: int, out_channels: int, scaling: Scaling) -> BinaryConv2d:
    """A binary 7x1 layer with one group for each output channel."""
    return BinaryConv2d(
        in_channels, out_channels, (SPATIAL_KERNEL, 1), padding=(3, 0), groups=out_channels, scaling=scaling
    )


class MLP(nn.Module):
    """Two binary layers, each with BN, uni-shortcut and RPReLU: (N, in, H, W) to (N, out, H, W).

    hidden is 4 in or in / 4; out is hidden / 4 or 12 hidden. The first shortcut has a BN and an RPReLU of its own.
    """

    def __init__(self, in_features: int, hidden_features: int, out_features: int, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.expands = hidden_features > in_features
        self.copies = out_features // hidden_features
        self.move1 = LearnableBias(in_features)
        self.binarise1 = variant.activation()
        self.fc1 = pointwise(in_features, hidden_features)
        self.act1 = RPReLU(hidden_features)
        self.act2 = RPReLU(hidden_features)
        self.act3 = RPReLU(out_features)
        self.move2 = LearnableBias(hidden_features)
        self.binarise2 = variant.activation()
        self.fc2 = pointwise(hidden_features, out_features)
        self.norm1 = nn.BatchNorm2d(hidden_features)
        self.norm2 = nn.BatchNorm2d(out_features)
        self.norm0 = nn.BatchNorm2d(hidden_features)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = tile(x, 4) if self.expands else self.variant.average(x, 4)
        shortcut = self.act1(self.norm0(shortcut))
        x = self.act2(self.norm1(self.fc1(self.binarise1(self.move1(x)))) + shortcut)
        shortcut = tile(x, self.copies) if self.copies else self.variant.average(x, 4)
        return self.act3(self.norm2(self.fc2(self.binarise2(self.move2(x)))) + shortcut)


class PATM(nn.Module):
    """Phase-aware token mixing (Wave-MLP) in binary layers: (N, dim, H, W) to the same shape.

    Five thresholded copies of the input give an amplitude and a phase for each direction, and a channel branch. The
    waves amplitude * (cos, sin)(phase) are mixed along the width and the height, and the three branches are merged by
    a softmax over weights that an MLP computes from their global average.
    """

    def __init__(self, dim: int, variant: Variant) -> None:
        super().__init__()
        self.dim = dim
        self.variant = variant
        self.move_thetah = LearnableBias(dim)
        self.binarise_thetah = variant.activation()
        self.theta_h_conv = pointwise(dim, dim)
        self.theta_h_bn = nn.BatchNorm2d(dim)
        self.theta_h_act = RPReLU(dim)
        self.move_thetaw = LearnableBias(dim)
        self.binarise_thetaw = variant.activation()
        self.theta_w_conv = pointwise(dim, dim)
        self.theta_w_bn = nn.BatchNorm2d(dim)
        self.theta_w_act = RPReLU(dim)

        self.move_fch = LearnableBias(dim)
        self.binarise_fch = variant.activation()
        self.fc_h = pointwise(dim, dim)
        self.fc_h_bn = nn.BatchNorm2d(dim)
        self.fc_h_act = RPReLU(dim)
        self.move_fcw = LearnableBias(dim)
        self.binarise_fcw = variant.activation()
        self.fc_w = pointwise(dim, dim)
        self.fc_w_bn = nn.BatchNorm2d(dim)
        self.fc_w_act = RPReLU(dim)

        self.move_tfch = LearnableBias(2 * dim)
        self.binarise_tfch = variant.activation()
        self.tfc_h = along_width(2 * dim, dim, variant.spatial_scaling)
        self.norm_h = nn.BatchNorm2d(dim)
        self.act_h = RPReLU(dim)
        self.move_tfcw = LearnableBias(2 * dim)
        self.binarise_tfcw = variant.activation()
        self.tfc_w = along_height(2 * dim, dim, variant.spatial_scaling)
        self.norm_w = nn.BatchNorm2d(dim)
        self.act_w = RPReLU(dim)

        self.move_fcc = LearnableBias(dim)
        self.binarise_fcc = variant.activation()
        self.fc_c = pointwise(dim, dim)
        self.norm_c = nn.BatchNorm2d(dim)
        self.act_c = RPReLU(dim)

        self.reweight = MLP(dim, dim // 4, dim * 3, variant)
        self.move_proj = LearnableBias(dim)
        self.binarise_proj = variant.activation()
        self.proj = pointwise(dim, dim)
        self.norm_proj = nn.BatchNorm2d(dim)
        self.act_proj = RPReLU(dim)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.move_thetah(x)
        phase_h = self.theta_h_act(self.theta_h_bn(self.theta_h_conv(self.binarise_thetah(moved))) + moved)
        moved = self.move_thetaw(x)
        phase_w = self.theta_w_act(self.theta_w_bn(self.theta_w_conv(self.binarise_thetaw(moved))) + moved)
        moved = self.move_fch(x)
        amplitude_h = self.fc_h_act(self.fc_h_bn(self.fc_h(self.binarise_fch(moved))) + moved)
        moved = self.move_fcw(x)
        amplitude_w = self.fc_w_act(self.fc_w_bn(self.fc_w(self.binarise_fcw(moved))) + moved)

        moved = self.move_tfch(wave(amplitude_h, phase_h))
        h = self.norm_h(self.tfc_h(self.binarise_tfch(moved))) + self.variant.average(moved, 2)
        h = self.act_h(h)
        moved = self.move_tfcw(wave(amplitude_w, phase_w))
        w = self.norm_w(self.tfc_w(self.binarise_tfcw(moved))) + self.variant.average(moved, 2)
        w = self.act_w(w)
        moved = self.move_fcc(x)
        c = self.act_c(self.norm_c(self.fc_c(self.binarise_fcc(moved))) + moved)

        # The MLP's 3 dim outputs are three weights for each channel, the fastest index being the branch.
        logits = self.reweight(F.adaptive_avg_pool2d(h + w + c + x, 1))
        weights = logits.reshape(-1, self.dim, 3).softmax(dim=2).unsqueeze(-1)
        merged = h * weights[:, :, 0:1] + w * weights[:, :, 1:2] + c * weights[:, :, 2:3] + x
        moved = self.move_proj(merged)
        return self.act_proj(self.norm_proj(self.proj(self.binarise_proj(moved))) + moved)


def wave(amplitude: Tensor, phase: Tensor) -> Tensor:
    """Real parts, then imaginary parts: (N, C, H, W) twice to (N, 2 C, H, W)."""
    return torch.cat([amplitude * torch.cos(phase), amplitude * torch.sin(phase)], dim=1)


class WaveBlock(nn.Module):
    """A BiMLP block: x + PATM(norm1 x), then x + a mix of the channel MLP and two depthwise branches of norm2 x."""

    def __init__(self, dim: int, mlp_ratio: int, variant: Variant) -> None:
        super().__init__()
        self.norm1 = variant.norm(dim)
        self.attn = PATM(dim, variant)
        self.norm2 = variant.norm(dim)
        self.mlp = MLP(dim, dim * mlp_ratio, dim, variant)
        self.move_h = LearnableBias(dim)
        self.binarise_h = variant.activation()
        self.sfc_h = along_width(dim, dim, variant.spatial_scaling)
        self.norm_h = nn.BatchNorm2d(dim)
        self.act1 = RPReLU(dim)
        self.move_w = LearnableBias(dim)
        self.binarise_w = variant.activation()
        self.sfc_w = along_height(dim, dim, variant.spatial_scaling)
        self.norm_w = nn.BatchNorm2d(dim)
        self.act2 = RPReLU(dim)
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        middle = self.norm2(x)
        a = self.mlp(middle)
        moved = self.move_h(middle)
        b = self.act1(self.norm_h(self.sfc_h(self.binarise_h(moved))) + moved)
        moved = self.move_w(middle)
        c = self.act2(self.norm_w(self.sfc_w(self.binarise_w(moved))) + moved)
        w0, w1 = self.weight[0], self.weight[1]
        return x + (w0 * b + w1 * c + (1 - w0 - w1) * a)


class PatchEmbedding(nn.Module):
    """The real-valued stem: convolution with bias, norm, RPReLU."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int, padding: int, variant: Variant) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride=stride, padding=padding)
        self.norm = variant.norm(dim)
        self.act = RPReLU(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.proj(x)))


class Downsample(nn.Module):
    """Real-valued 1x1 convolution, norm, RPReLU at full resolution, then the mean of four max-pools of stride 2."""

    def __init__(self, in_dim: int, out_dim: int, variant: Variant) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, out_dim, 1)
        self.norm = variant.norm(out_dim)
        self.act = RPReLU(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.proj(x)))
        return (same_max_pool(x, 2) + same_max_pool(x, 3) + same_max_pool(x, 5) + same_max_pool(x, 7)) / 4


def same_max_pool(x: Tensor, kernel: int) -> Tensor:
    """Max-pool of stride 2 with TensorFlow's "same" padding: (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).

    "same" pads kernel - 2 in all where the side is even and kernel - 1 where it is odd, the smaller half before; the
    half after is what ``ceil_mode`` adds.
    """
    padding = tuple((kernel - 2 + side % 2) // 2 for side in x.shape[2:])
    return F.max_pool2d(x, kernel, stride=2, padding=padding, ceil_mode=True)
