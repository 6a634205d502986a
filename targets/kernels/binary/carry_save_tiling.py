"""How the carry-save convolution cuts a layer: vectors along K, chains, tiles of pixels by eight output channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bnn_deploy.targets.kernels.binary.carry_save_chain import Chain, cut
from bnn_deploy.targets.kernels.binary.gathered_tiling import GatheredTiling
from bnn_deploy.targets.kernels.binary.tiling import Tile
from bnn_deploy.targets.kernels.words import ceil_divide

VECTOR_WORDS = 4
BLOCK_OUTPUTS = 8
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


@dataclass(frozen=True)
class CarrySaveTiling(GatheredTiling):
    """A layer cut up for ``carry_save_conv2d``.

    Attributes:
        specification: the layer.
        style: what suits the target's cores.
    """

    style: ChainStyle

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
        return Tile(BLOCK_OUTPUTS, ceil_divide(self.columns, tiles), 1)

    @cached_property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        return f"chain{self.chains[0].length}x{self.width_words}_p{self.tile.pixels}"
