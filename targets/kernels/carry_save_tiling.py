"""How the carry-save convolution cuts a layer: vectors along K, chains, tiles of pixels by eight output channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bnn_deploy.targets.kernels.carry_save import Chain, cut
from bnn_deploy.targets.kernels.specification import WORD_BITS, ConvolutionSpecification, ceil_divide
from bnn_deploy.targets.kernels.tiling import CHUNK_BYTES, SMALLEST_TASK_COUNT, Tile, Tiling

VECTOR_WORDS = 4
BLOCK_OUTPUTS = 8
# The words of a pixel lie on the stack, where TVM puts buffers below 1 KiB; sums stay within 16 bits, too.
LARGEST_PIXEL_WORDS = 252
# Half vectors of a pixel whose running xors stay in registers, and the most pixels to try it with.
RESIDENT_VECTORS = 17
RESIDENT_PIXELS = 3
# Equal chains that run in a loop; fewer are unrolled.
SMALLEST_LOOP = 3


@dataclass(frozen=True)
class ChainStyle:
    """What suits a core.

    Attributes:
        half_chain: longest chain of half vectors (two channels in a vector), for pixels that are one such chain.
        chain: longest chain of whole vectors, at most 7: four bytes per channel hold its counts.
        pixels: pixels of a tile where the running xors are read from memory.
        keep_order: whether LLVM is kept from moving loads up; on in-order cores it knows better.
    """

    half_chain: int
    chain: int
    pixels: int
    keep_order: bool


def fits(layer: ConvolutionSpecification) -> bool:
    """Whether the kernel computes ``layer``: +-1 activations, groups of whole words, a scale per channel."""
    return (
        not layer.ternary
        and not layer.tap_scaled
        and (layer.group == 1 or layer.group_channels % WORD_BITS == 0)
        and layer.group_outputs >= BLOCK_OUTPUTS
        and layer.taps * ceil_divide(layer.group_channels, WORD_BITS) <= LARGEST_PIXEL_WORDS
    )


@dataclass(frozen=True)
class CarrySaveTiling(Tiling):
    """A layer cut up for ``carry_save_conv2d``; ``style`` takes the place of ``widest``."""

    style: ChainStyle

    @cached_property
    def pixel_words(self) -> int:
        """Words of all taps of one pixel."""
        return self.specification.taps * self.group_words

    @cached_property
    def width_words(self) -> int:
        """Words of one channel in a vector: 2 (two channels share a vector) or 4."""
        return 2 if ceil_divide(self.pixel_words, 2) <= self.style.half_chain else 4

    @cached_property
    def steps(self) -> int:
        """Vectors of X for one pixel."""
        return ceil_divide(self.pixel_words, self.width_words)

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The chains one after another."""
        return cut(self.steps, self.style.half_chain if self.width_words == 2 else self.style.chain)

    @cached_property
    def looped_chains(self) -> int:
        """How many of the chains, which are equal, run in a loop; the others are unrolled."""
        equal = sum(chain == self.chains[0] for chain in self.chains)
        return equal if equal >= SMALLEST_LOOP else 0

    @cached_property
    def columns_of_block(self) -> int:
        """Weight vectors of one step of a block of channels."""
        return BLOCK_OUTPUTS * self.width_words // VECTOR_WORDS

    @cached_property
    def padded(self) -> bool:
        """Whether taps can fall into padding."""
        return any(self.specification.pads)

    @cached_property
    def tap_words(self) -> int:
        """Words of the popcounts (int16) of each tap of a block's channels, which padding needs."""
        return self.specification.taps * BLOCK_OUTPUTS // 2 if self.padded else 0

    @cached_property
    def weights_shape(self) -> tuple[int, int]:
        """(group * blocks, words): a block's vectors in the order they are read, then its tap popcounts."""
        words = self.steps * self.columns_of_block * VECTOR_WORDS + self.tap_words
        return (self.specification.group * self.group_blocks, words)

    @cached_property
    def resident(self) -> bool:
        """Whether the running xors of a tile stay in registers over all blocks of channels."""
        return 2 * self.steps <= RESIDENT_VECTORS + 1 and self.looped_chains == 0

    @cached_property
    def tile(self) -> Tile:
        """As many pixels as have their running xors in registers, made even over a row."""
        resident = max(2, min(RESIDENT_PIXELS, RESIDENT_VECTORS // self.steps))
        tiles = ceil_divide(self.columns, resident if self.resident else self.style.pixels)
        return Tile("chain", BLOCK_OUTPUTS, ceil_divide(self.columns, tiles), 1)

    @cached_property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        return f"chain{self.chains[0].length}x{self.width_words}_p{self.tile.pixels}"

    @cached_property
    def chunk_blocks(self) -> int:
        """Neighbouring blocks of one group that one task computes."""
        block_words = self.weights_shape[1]
        fitting = (
            count
            for count in range(1, self.group_blocks + 1)
            if self.group_blocks % count == 0
            and 4 * count * block_words <= CHUNK_BYTES
            and self.batch * self.rows * self.weights_shape[0] // count >= SMALLEST_TASK_COUNT
        )
        return max(fitting, default=1)
