"""How a layer is cut whose pixels' words are gathered before any block of output channels is computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bnn_deploy.targets.kernels.binary.tiling import Tiling
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.words import WORD_BITS, word_count

# The words of a pixel lie on the stack, where TVM puts buffers below 1 KiB; sums stay within 16 bits, too.
LARGEST_PIXEL_WORDS = 252


def fits(layer: ConvolutionSpecification, fewest_outputs: int) -> bool:
    """Whether such kernels compute ``layer``: +-1 activations, groups of whole words, a scale per channel.

    ``fewest_outputs``: of a group, so that a block of output channels is full.
    """
    return (
        not layer.ternary
        and not layer.tap_scaled
        and (layer.group == 1 or layer.group_channels % WORD_BITS == 0)
        and layer.group_outputs >= fewest_outputs
        and layer.taps * word_count(layer.group_channels) <= LARGEST_PIXEL_WORDS
    )


@dataclass(frozen=True)
class GatheredTiling(Tiling):
    """A layer cut up; a task computes blocks of one group only, so that it gathers a pixel once."""

    @cached_property
    def pixel_words(self) -> int:
        """Words of all taps of one pixel."""
        return self.specification.taps * self.group_words

    @cached_property
    def padded(self) -> bool:
        """Whether taps can fall into padding."""
        return any(self.specification.pads)

    @property
    def chunkable_blocks(self) -> int:
        """Blocks of one group."""
        return self.group_blocks
