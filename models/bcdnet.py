"""BCDNet (Xing et al., ECCV 2022): binary CNN stages followed by a binary MLP stage that mixes positions by shifting.

BCDNet-A is as released; BCDNet-B, published as text only, replaces the learned thresholds of the CNN stage by
``DataDependentThreshold`` (Eqs 9 to 13).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bnn_deploy.models.blocks import FirstConv, MobileBlock, ResidualBlock, ShiftBlock, global_average
from bnn_deploy.models.images import ImageModel, ImageRule
from bnn_deploy.models.resnet import ResNet18


@dataclass(frozen=True)
class BCDNetConfig:
    """Width of the stem, (output channels, stride) of each CNN block, and the number of MLP blocks."""

    stem: int
    blocks: tuple[tuple[int, int], ...]
    mlp_blocks: int


BCDNET_A = BCDNetConfig(
    stem=32,
    blocks=((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 3, (1024, 2)),
    mlp_blocks=3,
)
# Everything BCDNet-A has, with quarters of the channels (3, 6, 12, 24) that fill no 32-bit word.
BCDNET_TINY = BCDNetConfig(stem=12, blocks=((24, 1), (48, 2), (48, 1), (96, 2)), mlp_blocks=1)


class MLPBlock(nn.Module):
    """Three ShiftBlocks, then a PointBlock (a binary 1x1 convolution with shortcut)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        shifts = [ShiftBlock(channels) for _ in range(3)]
        self.mlp_layer = nn.Sequential(*shifts, ResidualBlock(channels, channels, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp_layer(x)


class BCDNet(ImageModel):
    """BCDNet-A, or B if ``data_dependent``: (N, 3, H, W) float32 to logits (N, num_classes), the mean of two heads.

    H and W must be multiples of the whole reduction, 32 for BCDNet-A.
    """

    def __init__(self, config: BCDNetConfig = BCDNET_A, num_classes: int = 1000, data_dependent: bool = False) -> None:
        super().__init__()
        self.feature = nn.ModuleList([FirstConv(3, config.stem)])
        channels = config.stem
        reduction = 2
        for out_channels, stride in config.blocks:
            self.feature.append(MobileBlock(channels, out_channels, stride, data_dependent=data_dependent))
            channels = out_channels
            reduction *= stride
        self.images = ImageRule(channels=3, multiple=reduction, minimum=reduction)
        self.mlp_layer = nn.Sequential(*(MLPBlock(channels) for _ in range(config.mlp_blocks)))
        self.fc = nn.Linear(channels, num_classes)
        self.fc_dist = nn.Linear(channels, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The pooled features (N, C) that both heads read."""
        self.images.check(x)
        for block in self.feature:
            x = block(x)
        return global_average(self.mlp_layer(x))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the class head and of the distillation head, for training with a teacher."""
        pooled = self.features(x)
        return self.fc(pooled), self.fc_dist(pooled)

    def forward(self, x: Tensor) -> Tensor:
        logits, distilled = self.heads(x)
        return (logits + distilled) / 2


class BCDNetR18(ResNet18):
    """BCDNet on ResNet-18, with one head: nine ShiftBlocks stand for the last three 3x3 convolutions of stage 4.

    ``data_dependent`` gives every remaining 3x3 convolution BCDNet-B's threshold.
    """

    def __init__(self, num_classes: int = 1000, data_dependent: bool = False) -> None:
        super().__init__(num_classes, shift_blocks=9, data_dependent=data_dependent)
