"""Real-valued ResNets (He et al., CVPR 2016), the convolutional teachers of the papers.

Parameters are named as in torchvision, so its weight files load. As there, ResNet-50 has its stride in the 3x3
convolution ("ResNet v1.5").
"""

from __future__ import annotations

from torch import Tensor, nn

from bnn_deploy.errors import InputError
from bnn_deploy.models.blocks import global_average
from bnn_deploy.models.images import ImageModel, ImageRule

# Blocks in each stage, and whether they are bottlenecks.
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
_TINY = "resnet_tiny"
TEACHER_NAMES = (*_RESNETS, _TINY)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, in, H, W) to (N, width, H / stride, W / stride), rounded up."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut: (N, in, H, W) to (N, 4 width, H / stride, W / stride), rounded up."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _downsample(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class FloatResNet(ImageModel):
    """ResNet-18, -34 or -50 by ``name``: (N, channels, H, W) of any H and W to logits (N, num_classes)."""

    def __init__(self, name: str = "resnet18", channels: int = 3, num_classes: int = 1000) -> None:
        super().__init__()
        depths, bottleneck = _RESNETS[name]
        block = Bottleneck if bottleneck else BasicBlock
        self.images = ImageRule(channels)
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, depths[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], 2)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.images.check(x)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(global_average(x))


class TinyResNet(ImageModel):
    """A small teacher for small images: (N, channels, H, W) of any H and W to logits (N, num_classes).

    A 3x3 stem of stride 1, then one BasicBlock each of 16, 32 and 64 channels, the last two of stride 2.
    """

    def __init__(self, channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.images = ImageRule(channels)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(BasicBlock, 16, 16, 1, 1)
        self.layer2 = _stage(BasicBlock, 16, 32, 1, 2)
        self.layer3 = _stage(BasicBlock, 32, 64, 1, 2)
        self.fc = nn.Linear(64, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        self.images.check(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(global_average(self.layer3(self.layer2(self.layer1(x)))))


def build_teacher(name: str, channels: int, num_classes: int) -> ImageModel:
    """Build a teacher with fresh random weights, in evaluation mode.

    Args:
        name: one of ``TEACHER_NAMES``.
        channels: of the images; torchvision's files are for 3.
        num_classes: outputs of the classifier.

    Returns:
        A module from (N, channels, H, W) floats to logits (N, num_classes).

    Raises:
        InputError: unknown name, or a count below 1.
    """
    if name not in TEACHER_NAMES:
        raise InputError(f"There is no teacher {name!r}; choose one of {', '.join(TEACHER_NAMES)}.")
    if channels < 1 or num_classes < 1:
        raise InputError(
            f"The teacher {name} cannot have {channels} channels and {num_classes} classes; both must be at least 1."
        )
    model = TinyResNet(channels, num_classes) if name == _TINY else FloatResNet(name, channels, num_classes)
    model.eval()
    return model


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    others = (block(width * block.expansion, width, 1) for _ in range(depth - 1))
    return nn.Sequential(block(in_channels, width, stride), *others)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _initialise(model: nn.Module) -> None:
    """He et al.'s normal weights, whose deviation keeps the size of the gradients from layer to layer."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
