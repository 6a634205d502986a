"""The binary ResNet-18 on which ReActNet and BCDNet both have a version."""

from __future__ import annotations

from torch import Tensor, nn

from bnn_deploy.models.blocks import ResidualBlock, ShiftBlock, global_average
from bnn_deploy.models.images import ImageModel, ImageRule


class ResNet18(ImageModel):
    """(N, 3, H, W) float32 with H and W multiples of 32, to logits (N, num_classes).

    A real-valued 7x7 stem and max-pool, then four stages of four binary 3x3 convolutions, each with its own shortcut.
    ``shift_blocks``, if not zero, is the number of ShiftBlocks that stand for all but the first convolution of stage 4;
    ``data_dependent`` gives every 3x3 convolution BCDNet-B's threshold.
    """

    images = ImageRule(channels=3, multiple=32, minimum=32)

    def __init__(self, num_classes: int = 1000, shift_blocks: int = 0, data_dependent: bool = False) -> None:
        super().__init__()

        def stage(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
            first = ResidualBlock(in_channels, out_channels, 3, stride=stride, data_dependent=data_dependent)
            others = (ResidualBlock(out_channels, out_channels, 3, data_dependent=data_dependent) for _ in range(3))
            return [first, *others]

        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(*stage(64, 64, 1))
        self.layer2 = nn.Sequential(*stage(64, 128, 2))
        self.layer3 = nn.Sequential(*stage(128, 256, 2))
        last = stage(256, 512, 2)
        if shift_blocks:
            last = [last[0], *(ShiftBlock(512) for _ in range(shift_blocks))]
        self.layer4 = nn.Sequential(*last)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        self.images.check(x)
        x = self.maxpool(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(global_average(x))
