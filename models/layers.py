"""The binary layers that every model is built from, and the small real-valued ones between them.

A binarisation is always two modules: one that adds a per-channel bias (``LearnableBias``), then ``BinaryActivation`` or
``TernaryActivation``, which have no parameters. Each activation module is called once in a forward pass, so its path
names one binarisation.

Every binary layer has an attribute ``binary``, true unless ``models/precision.py`` cleared it: without it an activation
hands its input on and a layer uses its real weights as they are, in training and in evaluation. It is part of neither the
parameters nor the state dict, so weights trained in one precision load in every other one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.errors import InputError
from bnn_deploy.models.straight_through import (
    SignGradient,
    sign,
    ternary,
    trainable_scaled_sign,
    trainable_sign,
    trainable_ternary,
)

Scaling = Literal["channel", "tap", "none"]


class BinaryActivation(nn.Module):
    """+1 where x > 0, else -1 (zero and NaN give -1); same shape and dtype as x.

    Training uses the straight-through gradient ``gradient``: "clip" (BiMLP Eq. 3) or "polynomial" (ReActNet, BCDNet).
    """

    boundaries = (0.0,)
    binary: bool = True

    def __init__(self, gradient: SignGradient = "polynomial") -> None:
        super().__init__()
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return x
        if self.training:
            return trainable_sign(x, self.gradient)
        return sign(x)

    def extra_repr(self) -> str:
        return self.gradient


class TernaryActivation(nn.Module):
    """+1 where x > 0.5, -1 where x < -0.5, else 0 (released BiMLP code).

    Training uses the gradient of clip(x, -1, 1).
    """

    boundaries = (-0.5, 0.5)
    binary: bool = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return x
        if self.training:
            return trainable_ternary(x)
        return ternary(x)


class BinaryConv2d(nn.Module):
    """Convolution of an input of {-1, 0, +1} with the signs of real weights, without bias; the padding contributes 0.

    Attributes are as in ``nn.Conv2d``, always as pairs: kernel_size (kh, kw), stride (sh, sw), padding (ph, pw).
    ``scaling`` says what multiplies the integer sums: "channel", the mean of abs(weight) over (C/groups, kh, kw);
    "tap", its mean over C/groups only, one scale for each output channel and kernel position; "none", nothing.
    """

    binary: bool = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        scaling: Scaling = "channel",
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise InputError(
                f"A binary convolution of {in_channels} to {out_channels} channels cannot have {groups} groups: "
                "both channel counts must be multiples of the number of groups."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.groups = groups
        self.scaling = scaling
        self._make_weight()

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out_channels, in_channels / groups, kh, kw)."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _make_weight(self) -> None:
        self.weight = nn.Parameter(initial_weight(self.weight_shape))

    def real_weight(self) -> Tensor:
        """The real weights that training keeps, float32 of ``weight_shape``."""
        return self.weight

    def binary_weight(self) -> Tensor:
        """The signs of the real weights, +1 or -1 (a zero weight gives -1), float32 of ``weight_shape``."""
        return sign(self.real_weight())

    def weight_scale(self) -> Tensor | None:
        """(out_channels,) for "channel", (out_channels, kh * kw) in row-major tap order for "tap", None for "none"."""
        magnitude = self.real_weight().abs()
        if self.scaling == "channel":
            return magnitude.mean(dim=(1, 2, 3))
        if self.scaling == "tap":
            return magnitude.mean(dim=1).flatten(1)
        return None

    def _broadcast_scale(self) -> Tensor:
        scale = self.weight_scale()
        if scale is None:
            return torch.ones((), dtype=self.real_weight().dtype, device=self.real_weight().device)
        if self.scaling == "tap":
            return scale.reshape(self.out_channels, 1, *self.kernel_size)
        return scale.reshape(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return self._convolve(x, self.real_weight())
        if self.training:
            weight = trainable_scaled_sign(self.real_weight(), self._broadcast_scale().detach())
            return self._convolve(x, weight)
        if self.scaling == "tap":
            return self._convolve(x, self.binary_weight() * self._broadcast_scale())
        # Exact integers first, then one multiplication: the order in which the compiled kernels compute.
        y = self._convolve(x, self.binary_weight())
        scale = self.weight_scale()
        return y if scale is None else y * scale.reshape(1, -1, 1, 1)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, scaling={self.scaling}"
        )


class FlatBinaryConv2d(BinaryConv2d):
    """A ``BinaryConv2d`` whose parameter is ``weights`` of shape (n, 1), as ReActNet-A's authors store it."""

    def _make_weight(self) -> None:
        self.weights = nn.Parameter(initial_weight(self.weight_shape).reshape(-1, 1))

    def real_weight(self) -> Tensor:
        return self.weights.reshape(self.weight_shape)


class BinaryLinear(nn.Module):
    """(..., in_features) of {-1, 0, +1} to (..., out_features): signs of real weights, times their mean magnitude."""

    binary: bool = True

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(initial_weight((out_features, in_features)))

    def binary_weight(self) -> Tensor:
        """The signs of the real weights, (out_features, in_features) of +1 or -1 (a zero weight gives -1)."""
        return sign(self.weight)

    def weight_scale(self) -> Tensor:
        """Mean of abs(weight) for each output, (out_features,)."""
        return self.weight.abs().mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.binary:
            return F.linear(x, self.weight)
        if self.training:
            weight = trainable_scaled_sign(self.weight, self.weight_scale().detach().reshape(-1, 1))
            return F.linear(x, weight)
        return F.linear(x, self.binary_weight()) * self.weight_scale()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class LearnableBias(nn.Module):
    """x (N, C, H, W) plus ``bias`` (1, C, 1, 1); before an activation it is ReActNet's RSign threshold, negated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias

    @torch.no_grad()
    def shift(self, amount: Tensor) -> None:
        """Change the parameters so that channel c of every output grows by ``amount[c]``."""
        self.bias.add_(amount.reshape(1, -1, 1, 1))

    def extra_repr(self) -> str:
        return str(self.bias.shape[1])


class ChannelPReLU(nn.Module):
    """PReLU whose slope is ``w`` of shape (1, C, 1, 1), as BiMLP's authors store it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((1, channels, 1, 1), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.w.flatten())


class RPReLU(nn.Module):
    """ReActNet's activation, bias, PReLU, bias per channel, with the names of BiMLP's code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.move1 = LearnableBias(channels)
        self.act = ChannelPReLU(channels)
        self.move2 = LearnableBias(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.move2(self.act(self.move1(x)))


def initial_weight(shape: tuple[int, ...]) -> Tensor:
    """Real weights to train from, normal with deviation 0.1: far inside the +-1 beyond which the gradient stops."""
    return torch.randn(shape) * 0.1


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
