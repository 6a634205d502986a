"""How a convolution is cut into tasks, blocks of output channels and register tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ceil_divide, word_count

# A uint8 counter holds the popcounts of 31 bytes: 31 * 8 = 248.
BYTE_COUNTER_WORDS = 31
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
        counter: ``"word"``: popcounts of 32-bit lanes are added as they are; ``"byte"``: popcounts of bytes are added
            in uint8 and widened now and then.
        lanes: output channels in one vector.
        pixels: output pixels of the tile.
        vectors: vectors of output channels of the tile.
    """

    counter: str
    lanes: int
    pixels: int
    vectors: int

    @property
    def block(self) -> int:
        """Output channels of the tile."""
        return self.lanes * self.vectors

    @property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        element = {"word": "u32", "byte": "u8"}[self.counter]
        return f"{element}x{self.lanes}_p{self.pixels}v{self.vectors}"


@dataclass(frozen=True)
class Tiling:
    """A layer cut up by the widest tile of a target.

    Attributes:
        specification: the layer.
        widest: the largest tile that the target's registers hold.
    """

    specification: ConvolutionSpecification
    widest: Tile

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
    def tile(self) -> Tile:
        """The widest tile made no wider than the layer, and even over a row and over the output channels."""
        outputs = self.specification.group_outputs
        lanes = min(self.widest.lanes, 1 << (outputs.bit_length() - 1))
        pixels = ceil_divide(self.columns, ceil_divide(self.columns, self.widest.pixels))
        # Fewest vectors computed in all; among equals the widest block, which reuses each word of X most.
        choices = range(min(self.widest.vectors, outputs // lanes), 0, -1)
        vectors = min(choices, key=lambda count: ceil_divide(outputs, count * lanes) * count)
        # Four lanes of bytes fill the narrowest vector; below, a scalar popcount does as well.
        return Tile(self.widest.counter if lanes >= 4 else "word", lanes, pixels, vectors)

    @cached_property
    def group_words(self) -> int:
        """Words of one tap of one output channel."""
        return word_count(self.specification.group_channels)

    @cached_property
    def group_blocks(self) -> int:
        """Blocks of output channels in one group; the last overlaps its neighbour instead of being narrower."""
        return ceil_divide(self.specification.group_outputs, self.tile.block)

    @cached_property
    def weights_shape(self) -> tuple[int, int, int, int, int]:
        """Layout of the packed weights: (group * blocks, taps, words, vectors, lanes), uint32."""
        blocks = self.specification.group * self.group_blocks
        return (blocks, self.specification.taps, self.group_words, self.tile.vectors, self.tile.lanes)

    @cached_property
    def chunk_blocks(self) -> int:
        """Neighbouring blocks that one task computes: as many as L1 holds while enough tasks are left."""
        blocks, *block_shape = self.weights_shape
        fitting = (
            count
            for count in range(1, blocks + 1)
            if blocks % count == 0
            and 4 * count * prod(block_shape) <= CHUNK_BYTES
            and self.batch * self.rows * blocks // count >= SMALLEST_TASK_COUNT
        )
        return max(fitting, default=1)

    @cached_property
    def chunk_words(self) -> int:
        """Words of a tap that are counted before a byte counter may be full: all of them, or even parts."""
        if self.tile.counter == "word":
            return self.group_words
        return ceil_divide(self.group_words, ceil_divide(self.group_words, BYTE_COUNTER_WORDS))

    @cached_property
    def flush(self) -> str:
        """When byte counters are widened: ``never``, or after each ``layer``, ``row`` of taps, ``tap`` or ``chunk``."""
        layer, words = self.specification, self.group_words
        if self.tile.counter == "word":
            return "never"
        if words * layer.taps <= BYTE_COUNTER_WORDS and not layer.tap_scaled:
            return "layer"
        if words * layer.kernel_shape[1] <= BYTE_COUNTER_WORDS and not layer.tap_scaled:
            return "row"
        return "tap" if words <= BYTE_COUNTER_WORDS else "chunk"
