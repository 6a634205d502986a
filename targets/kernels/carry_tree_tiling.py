"""How the carry-save tree convolution cuts a layer: groups of words, tiles of pixels by vectors of output channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from bnn_deploy.targets.kernels import carry_save_tiling
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ceil_divide
from bnn_deploy.targets.kernels.tiling import CHUNK_BYTES, SMALLEST_TASK_COUNT, Tile, Tiling

# A task of fewer products takes about a microsecond, and is not worth sharing out.
SMALLEST_TASK_MACS = 2**20


@dataclass(frozen=True)
class TreeStyle:
    """What suits a processor.

    Attributes:
        words: words of which one vector is counted, 8 or 16.
        lanes: output channels in one vector.
        pixels, vectors: the largest register tile.
        lookup: whether there is an instruction for any function of three bits.
    """

    words: int
    lanes: int
    pixels: int
    vectors: int
    lookup: bool


def fits(layer: ConvolutionSpecification, style: TreeStyle) -> bool:
    """Whether the kernel computes ``layer``: what the chains compute, with outputs for a whole vector."""
    return carry_save_tiling.fits(layer) and layer.group_outputs >= style.lanes


@dataclass(frozen=True)
class CarryTreeTiling(Tiling):
    """A layer cut up for ``carry_tree_conv2d``; ``style`` takes the place of ``widest``."""

    style: TreeStyle

    @cached_property
    def pixel_words(self) -> int:
        """Words of all taps of one pixel."""
        return self.specification.taps * self.group_words

    @cached_property
    def levels(self) -> int:
        """Weights of less than ``style.words``."""
        return self.style.words.bit_length() - 1

    @cached_property
    def looped_groups(self) -> int:
        """Groups of ``style.words`` words that are added in a loop; the rest, or all of less than two, is unrolled."""
        groups = self.pixel_words // self.style.words
        return groups if groups > 1 else 0

    @cached_property
    def padded(self) -> bool:
        """Whether taps can fall into padding."""
        return any(self.specification.pads)

    @cached_property
    def tile(self) -> Tile:
        """The largest tile made even over a row and over the output channels."""
        outputs, lanes = self.specification.group_outputs, self.style.lanes
        pixels = ceil_divide(self.columns, ceil_divide(self.columns, self.style.pixels))
        # Fewest vectors computed in all; among equals the widest block.
        choices = range(min(self.style.vectors, outputs // lanes), 0, -1)
        vectors = min(choices, key=lambda count: ceil_divide(outputs, count * lanes) * count)
        return Tile("tree", lanes, pixels, vectors)

    @cached_property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        return f"tree{self.style.words}x{self.tile.lanes}_p{self.tile.pixels}v{self.tile.vectors}"

    @cached_property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """(group * blocks, rows, vectors, lanes), uint32: a row per word, paired, then a popcount per tap if padded."""
        rows = self.pixel_words + (self.specification.taps if self.padded else 0)
        return (self.specification.group * self.group_blocks, rows, self.tile.vectors, self.tile.lanes)

    @cached_property
    def chunk_blocks(self) -> int:
        """Neighbouring blocks of one group that one task computes: the more, the fewer times a pixel is gathered."""
        blocks, *block_shape = self.weights_shape
        tasks = min(SMALLEST_TASK_COUNT, self.specification.binary_macs // SMALLEST_TASK_MACS)
        fitting = (
            count
            for count in range(1, self.group_blocks + 1)
            if self.group_blocks % count == 0
            and 4 * count * prod(block_shape) <= CHUNK_BYTES
            and self.batch * self.rows * blocks // count >= tasks
        )
        return max(fitting, default=1)
