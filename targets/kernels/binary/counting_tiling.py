"""How a layer is cut whose popcounts are added up: the target's widest register tile made no wider than the layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from bnn_deploy.targets.kernels.binary.tiling import Tile, Tiling, fewest_vectors
from bnn_deploy.targets.kernels.words import ceil_divide

# A uint8 counter holds the popcounts of 31 bytes: 31 * 8 = 248.
BYTE_COUNTER_WORDS = 31


@dataclass(frozen=True)
class CountingTile(Tile):
    """A register tile of counters.

    Attributes:
        lanes, pixels, vectors: as in ``Tile``.
        counter: ``"word"``: popcounts of 32-bit lanes are added as they are; ``"byte"``: popcounts of bytes are added
            in uint8 and widened now and then.
    """

    counter: Literal["word", "byte"]

    @property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        element = {"word": "u32", "byte": "u8"}[self.counter]
        return f"{element}x{self.lanes}_p{self.pixels}v{self.vectors}"


@dataclass(frozen=True)
class CountingTiling(Tiling):
    """A layer cut up by the widest tile of a target.

    Attributes:
        specification: the layer.
        widest: the largest tile that the target's registers hold.
    """

    widest: CountingTile

    @cached_property
    def tile(self) -> CountingTile:
        """The widest tile made no wider than the layer, and even over a row and over the output channels."""
        outputs = self.specification.group_outputs
        lanes = min(self.widest.lanes, 1 << (outputs.bit_length() - 1))
        pixels = ceil_divide(self.columns, ceil_divide(self.columns, self.widest.pixels))
        vectors = fewest_vectors(outputs, lanes, self.widest.vectors)
        # Four lanes of bytes fill the narrowest vector; below, a scalar popcount does as well.
        return CountingTile(lanes, pixels, vectors, self.widest.counter if lanes >= 4 else "word")

    @cached_property
    def name(self) -> str:
        """As it stands in a kernel's name."""
        return self.tile.name

    @cached_property
    def weights_shape(self) -> tuple[int, int, int, int, int]:
        """Layout of the packed weights: (group * blocks, taps, words, vectors, lanes), uint32."""
        blocks = self.specification.group * self.group_blocks
        return (blocks, self.specification.taps, self.group_words, self.tile.vectors, self.tile.lanes)

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
