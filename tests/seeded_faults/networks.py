"""Small networks which between them hold every kind of layer that a seeded fault may break.

Inputs are whole numbers and the stems' weights quarters, so that the stems' sums are exact in any order, and many of them are
exactly at the threshold of the sign that follows. Half of the gammas are negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bnn_deploy.export.export_model import export_model
from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    LearnableBias,
    RPReLU,
    TernaryActivation,
)

SHAPE = (3, 8, 8)
BATCH = 2
CLASSES = 5


class Residual(nn.Module):
    """Whole words: 3x3 with padding and stride, siblings of one tensor, shortcuts, RPReLU, groups of a word."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.move0 = LearnableBias(64)
        self.sign0 = BinaryActivation()
        self.conv0 = BinaryConv2d(64, 64, 3, padding=1)
        self.norm0 = nn.BatchNorm2d(64)
        self.act0 = RPReLU(64)
        self.move1 = LearnableBias(64)
        self.sign1 = BinaryActivation()
        self.conv1 = BinaryConv2d(64, 64)
        self.norm1 = nn.BatchNorm2d(64)
        self.move2 = LearnableBias(64)
        self.sign2 = BinaryActivation()
        self.conv2 = BinaryConv2d(64, 64, groups=2)
        self.norm2 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.move3 = LearnableBias(64)
        self.sign3 = BinaryActivation()
        self.conv3 = BinaryConv2d(64, 96, 3, stride=2, padding=1)
        self.norm3 = nn.BatchNorm2d(96)
        self.head = nn.Linear(96, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act0(self.norm0(self.conv0(self.sign0(self.move0(x)))) + x)
        first = self.norm1(self.conv1(self.sign1(self.move1(x))))
        second = self.norm2(self.conv2(self.sign2(self.move2(x))))
        x = self.prelu(first + second + x)
        x = self.norm3(self.conv3(self.sign3(self.move3(x))))
        return self.head(x.mean((2, 3)))


class Cut(nn.Module):
    """40 channels, a word and a part of one: signs of three values, rounding, scales per tap, groups, depthwise, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 40, 3, padding=1, bias=False)
        self.move0 = LearnableBias(40)
        self.sign0 = BinaryActivation()
        self.conv0 = BinaryConv2d(40, 48, 3, stride=2, padding=1)
        self.norm0 = nn.BatchNorm2d(48)
        self.act0 = RPReLU(48)
        self.round1 = TernaryActivation()
        self.conv1 = BinaryConv2d(48, 40, (1, 3), padding=(0, 1), scaling="tap")
        self.norm1 = nn.BatchNorm2d(40)
        self.move2 = LearnableBias(40)
        self.sign2 = BinaryActivation()
        self.conv2 = BinaryConv2d(40, 40, groups=4)
        self.norm2 = nn.BatchNorm2d(40)
        self.side_sign = BinaryActivation()
        self.side = BinaryConv2d(40, 40, 3, stride=2, padding=1, groups=40)
        self.move3 = LearnableBias(40)
        self.sign3 = BinaryActivation()
        self.conv3 = BinaryConv2d(40, 40, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(40)
        self.sign4 = BinaryActivation()
        self.linear4 = BinaryLinear(40, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        x = self.act0(self.norm0(self.conv0(self.sign0(self.move0(stem)))))
        x = self.norm1(self.conv1(self.round1(x)))
        x = self.norm2(self.conv2(self.sign2(self.move2(x)))) + x + self.side(self.side_sign(stem))
        x = self.norm3(self.conv3(self.sign3(self.move3(x)))) + x
        return self.head(self.linear4(self.sign4(x.mean((2, 3)))))


class Rolls(nn.Module):
    """BCDNet's rolled words (one half of them by rows, one by columns), BiMLP's tiled and averaged shortcuts, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.move0 = LearnableBias(64)
        self.sign0 = BinaryActivation()
        self.place = BinaryConv2d(64, 64, scaling="none")
        self.rolled = BinaryConv2d(64, 64, scaling="none")
        self.prelu0 = nn.PReLU(64)
        self.move1 = LearnableBias(64)
        self.sign1 = BinaryActivation()
        self.fc1 = BinaryConv2d(64, 128)
        self.norm1 = nn.BatchNorm2d(128)
        self.act1 = RPReLU(128)
        self.move2 = LearnableBias(128)
        self.sign2 = BinaryActivation()
        self.fc2 = BinaryConv2d(128, 64)
        self.norm2 = nn.BatchNorm2d(64)
        self.head = nn.Linear(64, CLASSES)
        self.head_dist = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        bits = self.sign0(self.move0(x))
        down, right = bits.chunk(2, dim=1)
        rolled = torch.cat([torch.roll(down, 1, 2), torch.roll(right, 3, 3)], dim=1)
        # Quarters, many of them 0.
        x = self.prelu0(self.place(bits) + self.rolled(rolled) + x)
        x = self.act1(self.norm1(self.fc1(self.sign1(self.move1(x)))) + torch.cat([x, x], dim=1))
        x = self.norm2(self.fc2(self.sign2(self.move2(x)))) + (x[:, :64] + x[:, 64:]) / 2
        pooled = x.mean((2, 3))
        return (self.head(pooled) + self.head_dist(pooled)) / 2


@dataclass(frozen=True)
class Network:
    """A network, where it is compiled for, and what is changed in its file.

    Attributes:
        build: makes the module.
        target: what it is compiled for.
        edits: (node, attribute, value) of what PyTorch's modules cannot express.
    """

    build: Callable[[], nn.Module]
    target: str = "x86-64-v3"
    edits: tuple[tuple[str, str, int | float | tuple[int, ...]], ...] = ()

    @property
    def needs_emulator(self) -> bool:
        """Whether it is compiled for arm64."""
        return not self.target.startswith("x86")

    def export(self, path: Path) -> None:
        """Write the network to an ONNX file, through the real exporter."""
        export_model(seeded(self.build()), path, input_shape=SHAPE, batch=BATCH)
        if self.edits:
            model = onnx.load(path)
            for name, attribute, value in self.edits:
                (node,) = (node for node in model.graph.node if node.name == name)
                kept = [a for a in node.attribute if a.name != attribute]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])
            onnx.checker.check_model(model)
            onnx.save(model, path)


NETWORKS = {
    # An epsilon that matters; exported batch norms have none left.
    "residual": Network(Residual, edits=(("norm0", "epsilon", 1e-3),)),
    # Padding on two sides only; a sign that is 0 at its threshold, one that is +1 there.
    "cut": Network(Cut, edits=(("conv0", "pads", (0, 0, 1, 1)), ("sign0", "zero", 0), ("side_sign", "zero", 1))),
    "rolls": Network(Rolls),
    "residual-arm64": Network(Residual, target="rpi4"),
}


@torch.no_grad()
def seeded(module: nn.Module) -> nn.Module:
    """Parameters and statistics of every layer, the same each time; ``module`` in eval mode."""
    torch.manual_seed(23)
    for name, layer in module.named_modules():
        if name == "stem":
            layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape) / 4)
        elif isinstance(layer, LearnableBias):
            # Quarters; zeros among them, whose negative is the threshold -0.0.
            layer.bias.copy_(torch.randint(-4, 5, layer.bias.shape) / 4)
        elif isinstance(layer, nn.BatchNorm2d):
            channels = layer.num_features
            layer.weight.copy_((torch.rand(channels) + 0.5) * (1 - 2 * (torch.arange(channels) % 2)))
            layer.bias.copy_(torch.randn(channels))
            layer.running_mean.copy_(torch.randn(channels))
            layer.running_var.copy_(torch.rand(channels) + 0.5)
        elif isinstance(layer, nn.PReLU):
            layer.weight.copy_(torch.randn(layer.weight.shape) / 2)
        elif isinstance(layer, BinaryConv2d | BinaryLinear):
            layer.weight.copy_(torch.randn(layer.weight.shape) / 8)
            # One output whose weights are all +1: with inputs of +1 or of -1 alone it counts as far as any can.
            layer.weight[3].abs_()
    for name, parameter in module.named_parameters():
        if name.endswith("act.w"):
            parameter.copy_(torch.randn(parameter.shape) / 2)
    return module.eval()


def images(count: int = BATCH, seed: int = 5) -> np.ndarray:
    """Whole numbers from -2 to 2, float32 (count, *SHAPE)."""
    return np.random.default_rng(seed).integers(-2, 3, (count, *SHAPE)).astype("float32")
