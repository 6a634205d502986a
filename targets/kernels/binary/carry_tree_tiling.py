"""How the carry-save tree convolution cuts a layer: groups of words, tiles of pixels by vectors of output channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bnn_deploy.targets.kernels.binary.gathered_tiling import GatheredTiling
from bnn_deploy.targets.kernels.binary.tiling import SMALLEST_TASK_COUNT, Tile, fewest_vectors
from bnn_deploy.targets.kernels.words import ceil_divide

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


@dataclass(frozen=True)
class CarryTreeTiling(GatheredTiling):
    """A layer cut up for ``carry_tree_conv2d``.

    Attributes:
        specification: the layer.
        style: what suits the target's processors.
    """

    style: TreeStyle

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
    def tile(self) -> Tile:
        """The largest tile made even over a row and over the output channels."""
        outputs, lanes = self.specification.group_outputs, self.style.lanes
        pixels = ceil_divide(self.columns, ceil_divide(self.columns, self.style.pixels))
        vectors = fewest_vectors(outputs, lanes, self.style.vectors)
        return Tile(lanes, pixels, vectors)

    @cached_property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        return f"tree{self.style.words}x{self.tile.lanes}_p{self.tile.pixels}v{self.tile.vectors}"

    @cached_property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """(group * blocks, rows, vectors, lanes), uint32: a row per word, paired, then a popcount per tap if padded."""
        rows = self.pixel_words + (self.specification.taps if self.padded else 0)
        return (self.specification.group * self.group_blocks, rows, self.tile.vectors, self.tile.lanes)

    @property
    def wanted_tasks(self) -> int:
        """As many as there are cores, or fewer of a layer that is too small for them."""
        return min(SMALLEST_TASK_COUNT, self.specification.binary_macs // SMALLEST_TASK_MACS)
