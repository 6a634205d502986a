"""The images that a model takes, and the check of it, shared by all models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from bnn_deploy.errors import InputError


@dataclass(frozen=True)
class ImageRule:
    """Images of ``channels`` channels whose height and width are at least ``minimum`` and multiples of ``multiple``."""

    channels: int
    multiple: int = 1
    minimum: int = 1

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError unless the height and width follow the rule."""
        if min(height, width) < self.minimum or height % self.multiple or width % self.multiple:
            multiples = f" and multiples of {self.multiple}" if self.multiple > 1 else ""
            raise InputError(
                f"Images of {height}x{width} do not fit the model, whose height and width must be at least "
                f"{self.minimum}{multiples}; resize or pad the images."
            )

    def check(self, x: Tensor) -> None:
        """Raise InputError unless x is (N, channels, H, W) with H and W that follow the rule."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            found = "x".join(str(side) for side in x.shape)
            raise InputError(
                f"The model takes images of shape (N, {self.channels}, height, width) but got {found}; "
                "reshape or convert the images."
            )
        self.check_size(int(x.shape[2]), int(x.shape[3]))


class ImageModel(nn.Module):
    """A network from images (N, channels, H, W) float32, which follow ``images``, to logits (N, num_classes).

    ``counts_biases``: its paper counts the additions of biases as operations.
    """

    images: ImageRule
    counts_biases = False
