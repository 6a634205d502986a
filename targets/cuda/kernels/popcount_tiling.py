"""How the popcount kernel cuts a layer into blocks, warps and registers.

A lane computes one output channel, a warp 32 of them for ``pixels`` output pixels. What a lane keeps for a pixel is a counter and
a word. With 8 pixels, NVRTC 12.2 takes 32 to 96 registers for BCDNet-A's layers and those of the tests, and spills none, so that
an SM holds 20 warps or more; and one load of 128 bits of weights, from L1 or L2, serves 32 words of dot product: 80 instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bnn_deploy.targets.cuda.kernels.shifted_words import piece_words
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.words import ceil_divide, word_count

LANES = 32
# Words that a lane loads at once.
STEP = 4
_MOST_PIXELS = 8
_MOST_WARPS = 4
# Words of a pixel in shared memory, a multiple of 3x3 taps: 32 pixels are 9.5 KiB, of which 6 blocks of 4 warps fit into the 64 KiB
# of the smallest SMs.
_MOST_CHUNK_WORDS = 72
# Four warps for each of the four schedulers of 8 SMs (Xavier): fewer cannot hide the latency of loads.
_ENOUGH_WARPS = 128
# What a step costs a warp beside its pixels, in pixels: 5 instructions where a pixel has 11, and a guess at the wait for weights.
_STEP_OVERHEAD = 1.5
# Warps per busy one, the rest idle behind the last pixel, that are worth sharing weights between warps for.
_MOST_IDLE = 1.25


@dataclass(frozen=True)
class PopcountTiling:
    """The tiles of one layer.

    Attributes:
        specification: the layer.
    """

    specification: ConvolutionSpecification

    @cached_property
    def output_pixels(self) -> int:
        """Of all images."""
        batch, rows, columns, _ = self.specification.image_output_shape
        return batch * rows * columns

    @cached_property
    def group_tiles(self) -> int:
        """Tiles of 32 output channels in a group."""
        return ceil_divide(self.specification.group_outputs, LANES)

    @cached_property
    def pixels(self) -> int:
        """Output pixels of a lane: 7 for an image of 7x7, 1 for one row of a linear layer."""
        tiles = self.group_tiles * self.specification.group
        enough = min(_ENOUGH_WARPS, self.output_pixels * tiles)
        able = [p for p in range(1, _MOST_PIXELS + 1) if ceil_divide(self.output_pixels, p) * tiles >= enough]
        return min(able, key=lambda p: (ceil_divide(self.output_pixels, p) * (p + _STEP_OVERHEAD), -p))

    @cached_property
    def pixel_warps(self) -> int:
        """Warps of a block that compute the same channels of other pixels: they read the same weights."""
        count = ceil_divide(self.output_pixels, self.pixels)
        return next(warps for warps in (4, 2, 1) if ceil_divide(count, warps) * warps <= _MOST_IDLE * count)

    @cached_property
    def channel_warps(self) -> int:
        """Warps of a block that compute other channels of the same pixels."""
        most = _MOST_WARPS // self.pixel_warps
        return next(warps for warps in (4, 2, 1) if warps <= most and self.group_tiles % warps == 0)

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.pixel_warps * self.channel_warps

    @property
    def block_pixels(self) -> int:
        """Output pixels of a block, at most 32."""
        return self.pixel_warps * self.pixels

    @property
    def pixel_blocks(self) -> int:
        """Blocks along the output pixels."""
        return ceil_divide(self.output_pixels, self.block_pixels)

    @property
    def group_blocks(self) -> int:
        """Blocks along the output channels of a group."""
        return self.group_tiles // self.channel_warps

    @property
    def planes(self) -> int:
        """Bit planes of the activations."""
        return self.specification.planes

    @property
    def group_words(self) -> int:
        """Words of a tap."""
        return word_count(self.specification.group_channels)

    @property
    def words(self) -> int:
        """Words of a dot product, tap by tap."""
        return self.specification.taps * self.group_words

    @cached_property
    def chunk(self) -> int:
        """Words of a dot product that are in shared memory at once, a multiple of ``STEP``: the least that are wasted."""
        most = _MOST_CHUNK_WORDS // self.planes
        sizes = range(most, 0, -STEP)
        return min(sizes, key=lambda size: (ceil_divide(self.words, size) * size, ceil_divide(self.words, size)))

    @property
    def chunks(self) -> int:
        """Chunks of a dot product; what the last one has too much is 0."""
        return ceil_divide(self.words, self.chunk)

    @property
    def row(self) -> int:
        """Words from one pixel to the next in shared memory: an odd multiple of 4, so that 8 lanes store 16 bytes each to
        different banks."""
        return self.chunk if self.chunk % 8 else self.chunk + STEP

    @property
    def copied(self) -> int:
        """Words that a lane copies at once: of one tap or segment, and aligned."""
        if self.specification.group > 1 and self.specification.group_channels % 32:
            return 1
        return piece_words(self.group_words, self.specification.shifts)

    @property
    def corrected(self) -> bool:
        """Whether padding must be taken out of the sums; of ternary activations, padding is 0."""
        return any(self.specification.pads) and not self.specification.ternary

    @property
    def name(self) -> str:
        """Channels and pixels of a block."""
        return f"popc_{LANES * self.channel_warps}x{self.block_pixels}"
