"""How a binary layer is cut into tiles for b1 tensor cores: output pixels by output channels by words of the window.

The layer is a matrix product of all output pixels by all output channels, and what is summed over are the words (32 bits) of
all taps, tap after tap, in chunks of 16 words: two k-steps of an mma. A block of threads computes ``pixels`` by ``channels``;
each of its warps a tile of ``warp_pixels`` by ``warp_channels`` in subtiles of 8 by 16. Channels are the rows of the mma and
pixels its columns: the fragment of rows is four registers of two rows, which lie side by side in memory only if that was packed
so, and weights are packed when a model is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.cuda.device_functions import WARP
from bnn_deploy.targets.cuda.kernels.shifted_words import piece_words
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.words import WORD_BITS, ceil_divide, word_count

# Words of one chunk: a lane loads four of a pixel with one 128-bit load, and eight lanes' loads are two whole pixels, so that
# they fall into all 32 banks of shared memory once.
CHUNK = 16
# Words that one lane has of each pixel of a chunk: two for each of the two k-steps.
LANE_WORDS = 4
STEPS = 2
MMA_CHANNELS, MMA_PIXELS = 16, 8
# Shared memory that a kernel may declare without asking the driver for more.
SHARED_BYTES = 48 * 1024
MOST_STAGES = 4
# Multiprocessors of a common GPU of each architecture, to be kept busy: RTX 2080 Ti, A100, RTX 3080, AGX Orin (64 GB),
# RTX 4090, H100 and H200 (SXM), by NVIDIA's data sheets. A bundle is compiled for an architecture, not for one GPU.
MULTIPROCESSORS = {75: 68, 80: 108, 86: 68, 87: 16, 89: 128, 90: 132}

# Below, memory and not the tensor cores bounds a layer: then more and smaller blocks on a multiprocessor, some of which store
# while others multiply, are better. Each float output is 4 bytes, and often an operand of 4 more is read. On an H200, 4.8 TB/s
# is 20 bytes a clock for each multiprocessor (132, 1.8 GHz), so these take 0.4 clocks; 4096 bits at 16384 a clock take 0.25.
LARGE_TILE_CHUNKS = 8


@dataclass(frozen=True)
class MmaTile:
    """What a block and each of its warps compute."""

    pixels: int
    channels: int
    warp_pixels: int
    warp_channels: int

    @property
    def name(self) -> str:
        """As in names of kernels: "128x64"."""
        return f"{self.pixels}x{self.channels}"

    @property
    def pixel_warps(self) -> int:
        """Warps over the pixels of a block."""
        return self.pixels // self.warp_pixels

    @property
    def channel_warps(self) -> int:
        """Warps over the channels of a block."""
        return self.channels // self.warp_channels

    @property
    def pixel_subtiles(self) -> int:
        """Of a warp."""
        return self.warp_pixels // MMA_PIXELS

    @property
    def channel_subtiles(self) -> int:
        """Of a warp."""
        return self.warp_channels // MMA_CHANNELS

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.pixel_warps * self.channel_warps * WARP


# From the best ratio of mma to everything else to the most blocks. A warp computes whole groups of 32 channels, so that its
# lanes have all bits of a packed word. 64x64 per warp is as much as its registers hold: 128 sums in each thread.
TILES = (
    MmaTile(256, 128, 64, 64),
    MmaTile(128, 128, 64, 64),
    MmaTile(128, 64, 64, 32),
    MmaTile(64, 64, 32, 32),
    MmaTile(128, 32, 32, 32),
    MmaTile(64, 32, 16, 32),
    MmaTile(32, 32, 16, 32),
    MmaTile(16, 32, 16, 32),
    MmaTile(8, 32, 8, 32),
)
# Three-valued activations have two planes of them and of weights in registers, and two in shared memory.
TERNARY_TILES = TILES[2:]


@dataclass(frozen=True)
class MmaTiling:
    """A layer on a GPU, and its tile."""

    specification: ConvolutionSpecification
    gpu: Gpu
    tile: MmaTile

    @property
    def form(self) -> str:
        """ "xor" or "and": what the tensor cores count."""
        return architecture(self.gpu.sm).dot_product[:3]

    @property
    def planes(self) -> int:
        """Bit planes of the activations."""
        return self.specification.planes

    @property
    def pixels(self) -> int:
        """Output pixels of all images."""
        batch, rows, columns, _ = self.specification.image_output_shape
        return batch * rows * columns

    @property
    def words(self) -> int:
        """Words that are summed over: of all taps."""
        return self.specification.taps * word_count(self.specification.in_channels)

    @property
    def chunks(self) -> int:
        """Chunks of words; the last one is filled up with zeros."""
        return ceil_divide(self.words, CHUNK)

    @property
    def pixel_tiles(self) -> int:
        """Blocks over the pixels."""
        return ceil_divide(self.pixels, self.tile.pixels)

    @property
    def channel_tiles(self) -> int:
        """Blocks over the channels."""
        return ceil_divide(self.specification.out_channels, self.tile.channels)

    @property
    def blocks(self) -> int:
        """Blocks of threads."""
        return self.pixel_tiles * self.channel_tiles

    @property
    def copy_words(self) -> int:
        """Activations are copied by so many words: the most that never reach over the end of a pixel or segment."""
        return piece_words(word_count(self.specification.in_channels), self.specification.shifts)

    @property
    def stages(self) -> int:
        """Chunks that shared memory holds. Without asynchronous copies more than two are of no use."""
        most = MOST_STAGES if architecture(self.gpu.sm).has_cp_async else 2
        return min(most, SHARED_BYTES // self._stage_bytes)

    @property
    def _stage_bytes(self) -> int:
        return (self.planes * self.tile.pixels + self.tile.channels) * CHUNK * 4


def choose_tiling(specification: ConvolutionSpecification, gpu: Gpu) -> MmaTiling:
    """The first tile that the layer fills to three quarters and that gives every multiprocessor a block.

    A larger tile reads less for each product, but layers of few pixels would leave most of the GPU idle.
    """
    tilings = [MmaTiling(specification, gpu, tile) for tile in (TERNARY_TILES if specification.ternary else TILES)]
    return next((tiling for tiling in tilings if _suits(tiling)), tilings[-1])


def _suits(tiling: MmaTiling) -> bool:
    tile, outputs = tiling.tile, tiling.specification.out_channels
    large = tile.warp_pixels * tile.warp_channels > 32 * 32
    # Narrow copies keep track of more pixels in each thread.
    if large and (tiling.copy_words == 1 or tiling.chunks < LARGE_TILE_CHUNKS):
        return False
    filled = _fills(outputs, tile.channels) or tile.channels == WORD_BITS
    return filled and _fills(tiling.pixels, tile.pixels) and tiling.blocks >= MULTIPROCESSORS[tiling.gpu.sm]


def _fills(size: int, tile: int) -> bool:
    return 4 * size >= 3 * ceil_divide(size, tile) * tile
