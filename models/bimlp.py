"""BiMLP-S, BiMLP-M and a tiny BiMLP for 8x8 images, each as in the paper or as in the released code."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.errors import InputError
from bnn_deploy.models.bimlp_layers import Downsample, PatchEmbedding, Variant, WaveBlock
from bnn_deploy.models.images import ImageModel, ImageRule

MLP_RATIO = 4


@dataclass(frozen=True)
class BiMLPConfig:
    """Sizes of a BiMLP: width and number of blocks of each stage, and the stem's convolution.

    ``released_group_norm`` says whether the released code has GroupNorm(1) in this model (in M, not in S).
    """

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    released_group_norm: bool
    in_channels: int = 3
    stem_kernel: int = 7
    stem_stride: int = 4
    stem_padding: int = 2

    def variant(self, name: str) -> Variant:
        """The differences named "paper" or "released"; raises InputError for any other name."""
        if name == "paper":
            return Variant()
        if name == "released":
            group_norm = self.released_group_norm
            return Variant(ternary=True, spatial_scaling="tap", adjacent=True, group_norm=group_norm)
        raise InputError(f"BiMLP has no variant {name!r}; choose 'paper' or 'released'.")


BIMLP_S = BiMLPConfig(dims=(64, 128, 320, 512), depths=(2, 2, 4, 2), released_group_norm=False)
BIMLP_M = BiMLPConfig(dims=(64, 128, 320, 512), depths=(2, 3, 10, 3), released_group_norm=True)
BIMLP_TINY = BiMLPConfig(
    dims=(32, 64), depths=(1, 1), released_group_norm=True, in_channels=1, stem_kernel=3, stem_stride=1, stem_padding=1
)


class BiMLP(ImageModel):
    """BiMLP: (N, in_channels, H, W) float32 to logits (N, num_classes); any H and W that the stem's kernel fits."""

    counts_biases = True

    def __init__(self, config: BiMLPConfig = BIMLP_S, num_classes: int = 1000, variant: str = "paper") -> None:
        super().__init__()
        self.config = config
        choices = config.variant(variant)
        self.images = ImageRule(config.in_channels, minimum=config.stem_kernel - 2 * config.stem_padding)
        self.patch_embed = PatchEmbedding(
            config.in_channels, config.dims[0], config.stem_kernel, config.stem_stride, config.stem_padding, choices
        )
        network: list[nn.Module] = []
        for index, (dim, depth) in enumerate(zip(config.dims, config.depths, strict=True)):
            if index:
                network.append(Downsample(config.dims[index - 1], dim, choices))
            network.append(nn.Sequential(*(WaveBlock(dim, MLP_RATIO, choices) for _ in range(depth))))
        self.network = nn.ModuleList(network)
        self.norm = choices.norm(config.dims[-1])
        self.head = nn.Linear(config.dims[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        self.images.check(x)
        x = self.patch_embed(x)
        for part in self.network:
            x = part(x)
        return self.head(F.adaptive_avg_pool2d(self.norm(x), 1).flatten(1))
