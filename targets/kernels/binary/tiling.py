"""How a binary convolution is cut into tasks, blocks of output channels and register tiles, whatever counts its bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.words import ceil_divide, word_count

# Weights of one task's chunk: half of the smallest L1 data cache among the targets (32 KiB); the rest is for X.
CHUNK_BYTES = 16384
# With fewer tasks than this, cores of the largest machines we care about (8) stay idle.
SMALLEST_TASK_COUNT = 8
# The pixels of a 1x1 layer are one long row, cut into rows of a length in this range.
FLAT_ROW_PIXELS = (32, 128)


@dataclass(frozen=True)
class Tile:
    """A register tile.

    Attributes:
        lanes: output channels in one vector.
        pixels: output pixels of the tile.
        vectors: vectors of output channels of the tile.
    """

    lanes: int
    pixels: int
    vectors: int

    @property
    def block(self) -> int:
        """Output channels of the tile."""
        return self.lanes * self.vectors


@dataclass(frozen=True)
class Tiling(ABC):
    """A layer cut up.

    Attributes:
        specification: the layer.
    """

    specification: ConvolutionSpecification

    @cached_property
    @abstractmethod
    def tile(self) -> Tile:
        """The register tile of the layer."""

    @cached_property
    @abstractmethod
    def weights_shape(self) -> tuple[int, ...]:
        """Layout of the packed weights, uint32: (group * blocks, …)."""

    @cached_property
    @abstractmethod
    def name(self) -> str:
        """As it stands in a kernel's name."""

    @cached_property
    def flat(self) -> bool:
        """A 1x1 layer without stride or padding does not care where a row or an image ends, unless planes end there too."""
        layer = self.specification
        one_row = not layer.ternary or layer.width == 1 or layer.batch * layer.height == 1
        pointwise = layer.taps == 1 and max(layer.strides) == 1 and not any(layer.pads)
        return one_row and pointwise and not layer.block_rows

    @cached_property
    def batch(self) -> int:
        """Images that one call walks."""
        return 1 if self.flat else self.specification.output_shape[0]

    @cached_property
    def columns(self) -> int:
        """Output pixels in a row as the kernel walks them."""
        batch, rows, columns, _ = self.specification.output_shape
        pixels = batch * rows * columns
        shortest, longest = FLAT_ROW_PIXELS
        if not self.flat:
            return columns
        if pixels <= longest:
            return pixels
        return max((size for size in range(shortest, longest + 1) if pixels % size == 0), default=columns)

    @cached_property
    def rows(self) -> int:
        """Output rows per image as one call walks them."""
        batch, rows, columns, _ = self.specification.output_shape
        return batch * rows * columns // self.columns if self.flat else rows

    @cached_property
    def height(self) -> int:
        """Input rows per image as the kernel walks them."""
        return self.rows if self.flat else self.specification.height

    @cached_property
    def width(self) -> int:
        """Input columns as the kernel walks them."""
        return self.columns if self.flat else self.specification.width

    @cached_property
    def group_words(self) -> int:
        """Words of one tap of one output channel."""
        return word_count(self.specification.group_channels)

    @cached_property
    def group_blocks(self) -> int:
        """Blocks of output channels in one group; the last overlaps its neighbour instead of being narrower."""
        return ceil_divide(self.specification.group_outputs, self.tile.block)

    @property
    def chunkable_blocks(self) -> int:
        """Neighbouring blocks that a task may compute some of."""
        return self.weights_shape[0]

    @property
    def wanted_tasks(self) -> int:
        """Tasks that must be left when blocks are put together."""
        return SMALLEST_TASK_COUNT

    @cached_property
    def chunk_blocks(self) -> int:
        """Neighbouring blocks that one task computes: as many as L1 holds while enough tasks are left."""
        blocks, *block_shape = self.weights_shape
        fitting = (
            count
            for count in range(1, self.chunkable_blocks + 1)
            if self.chunkable_blocks % count == 0
            and 4 * count * prod(block_shape) <= CHUNK_BYTES
            and self.batch * self.rows * blocks // count >= self.wanted_tasks
        )
        return max(fitting, default=1)

    def output_blocks(self, words: np.ndarray) -> np.ndarray:
        """(O, taps, words) as (group * blocks, outputs of a block, taps, words)."""
        layer, outputs = self.specification, self.tile.block
        last = layer.group_outputs - outputs
        starts = [
            group * layer.group_outputs + min(index * outputs, last)
            for group in range(layer.group)
            for index in range(self.group_blocks)
        ]
        return np.stack([words[start : start + outputs] for start in starts])


def fewest_vectors(outputs: int, lanes: int, most: int) -> int:
    """Vectors of a block, at most ``most``: fewest computed in all; among equals the widest block, which reuses X most."""
    choices = range(min(most, outputs // lanes), 0, -1)
    return min(choices, key=lambda count: ceil_divide(outputs, count * lanes) * count)
