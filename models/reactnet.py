"""ReActNet (Liu et al., ECCV 2020): ReActNet-A on MobileNet and ReActNet on ResNet-18."""

from __future__ import annotations

from torch import Tensor, nn

from bnn_deploy.models.blocks import FirstConv, MobileBlock, global_average
from bnn_deploy.models.images import ImageModel, ImageRule
from bnn_deploy.models.layers import FlatBinaryConv2d
from bnn_deploy.models.resnet import ResNet18

# (output channels, stride) of each block after the stem of 32 channels.
REACTNET_A_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class ReActNetA(ImageModel):
    """ReActNet-A: (N, 3, H, W) float32 with H and W multiples of 32, to logits (N, num_classes)."""

    images = ImageRule(channels=3, multiple=32, minimum=32)

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.feature = nn.ModuleList([FirstConv(3, 32)])
        channels = 32
        for out_channels, stride in REACTNET_A_BLOCKS:
            self.feature.append(MobileBlock(channels, out_channels, stride, convolution=FlatBinaryConv2d))
            channels = out_channels
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        self.images.check(x)
        for block in self.feature:
            x = block(x)
        return self.fc(global_average(x))


class ReActNetR18(ResNet18):
    """ReActNet on ResNet-18: (N, 3, H, W) float32 with H and W multiples of 32, to logits (N, num_classes)."""
