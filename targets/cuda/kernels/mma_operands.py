"""The operands of a tile of the mma kernel: from global memory through shared memory into registers.

Activations are gathered window by window while they are copied (an implicit im2col). A thread always copies the same place of
a chunk, for some pixels of the tile; it finds their windows once, and the tap of its place once for each chunk.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.cuda.device_functions import WARP, copy_async
from bnn_deploy.targets.cuda.kernels.mma_tiling import CHUNK, LANE_WORDS, MMA_CHANNELS, MMA_PIXELS, STEPS, MmaTiling
from bnn_deploy.targets.cuda.kernels.shifted_words import by_segment, segments
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, Index, lanes_at, let, loop, when
from bnn_deploy.targets.kernels.words import ceil_divide, word_count

# In no mask: the place lies beyond the words of the window.
_NO_TAP = 1 << 31
# Masks have a bit for each row and each column of the kernel, and this one more.
LARGEST_KERNEL = 31


def memory(name: str, count: int, element: str, scope: str) -> Buffer:
    """Memory of a block (``"shared"``) or of a thread (``"local"``)."""
    buffer = T.alloc_buffer((count,), element, scope=scope)
    IRBuilder.name(name, buffer)
    return buffer


class ActivationTile:
    """``stages`` times ``planes`` tiles of pixels of 16 words, in shared memory."""

    def __init__(self, tiling: MmaTiling, x: Buffer, thread: Expr, pixel_tile: Index) -> None:
        self.tiling, self.x, self.thread = tiling, x, thread
        self.words = word_count(tiling.specification.in_channels)
        self.tile_words = tiling.tile.pixels * CHUNK
        self.shared = memory("activation_tiles", tiling.stages * tiling.planes * self.tile_words, WORD, "shared")
        self.pieces = CHUNK // tiling.copy_words
        self.pixels_at_once = tiling.tile.threads // self.pieces
        self.passes = ceil_divide(tiling.tile.pixels, self.pixels_at_once)
        self.piece = let("piece", thread % self.pieces)
        self.first_pixel = let("copied_pixel", thread // self.pieces)
        self.always = not any(tiling.specification.pads) and tiling.pixels % tiling.tile.pixels == 0
        self.always = self.always and tiling.words % CHUNK == 0
        self.offsets = memory("pixel_offsets", self.passes, INTEGER, "local")
        self.masks = memory("pixel_masks", self.passes, WORD, "local")
        with loop("pass", self.passes, "unroll") as index:
            self._find_pixel(index, let("pixel", pixel_tile * tiling.tile.pixels + self._copied(index)))

    def _copied(self, index: Index) -> Expr:
        return index * self.pixels_at_once + self.first_pixel

    def _find_pixel(self, index: Index, pixel: Expr) -> None:
        """Where the window of a pixel begins in X, which may be before X, and which of its rows and columns it has."""
        layer, planes = self.tiling.specification, self.tiling.planes
        _, rows, columns, _ = layer.image_output_shape
        top, left = layer.pads[:2]
        row = let("row", pixel // columns % rows * layer.strides[0] - top)
        column = let("column", pixel % columns * layer.strides[1] - left)
        image_row = pixel // (rows * columns) * layer.height + row
        T.buffer_store(self.offsets, (image_row * planes * layer.width + column) * self.words, [index])
        if self.always and not layer.shifts:
            return
        mask = T.uint32(1)
        for number, segment in enumerate(segments(layer)):
            wrapping_row, wrapping_column = (T.uint32(bit) for bit in _wrapping(number))
            mask = mask | T.Select(row >= layer.height - segment.rows, wrapping_row, T.uint32(0))
            mask = mask | T.Select(column >= layer.width - segment.columns, wrapping_column, T.uint32(0))
        if any(layer.pads):
            mask = _inside(row, layer.kernel_shape[0], layer.height)
            mask = mask | (_inside(column, layer.kernel_shape[1], layer.width) << T.uint32(layer.kernel_shape[0]))
        T.buffer_store(self.masks, T.Select(pixel < self.tiling.pixels, mask, T.uint32(0)), [index])

    def copy(self, chunk: Index, stage: Index) -> None:
        """Begin to copy a chunk."""
        tiling, layer = self.tiling, self.tiling.specification
        word = let("word", chunk * CHUNK + self.piece * tiling.copy_words)
        place, needed = word, T.uint32(1)
        if layer.taps > 1:
            tap = let("tap", word // self.words)
            tap_row, tap_column = tap // layer.kernel_shape[1], tap % layer.kernel_shape[1]
            row_words = tiling.planes * layer.width * self.words
            place = let("place", tap_row * row_words + tap_column * self.words + word % self.words)
            if any(layer.pads):
                bit = T.uint32(1) << T.Cast(WORD, tap_row)
                needed = bit | (T.uint32(1) << T.Cast(WORD, tap_column + layer.kernel_shape[0]))
        elif any(layer.pads):
            needed = T.uint32(3)
        wraps = []
        if layer.shifts:
            pixel_words, row_words = self.words, layer.width * self.words
            moved = by_segment(layer, word, lambda _, s: s.offset + s.rows * row_words + s.columns * pixel_words)
            place = let("place", word + moved)
            row_bit = by_segment(layer, word, lambda number, _: T.uint32(_wrapping(number)[0]))
            column_bit = by_segment(layer, word, lambda number, _: T.uint32(_wrapping(number)[1]))
            wraps = [(let("wrapping", row_bit), layer.height * row_words), (let("wrapping", column_bit), row_words)]
        if tiling.words % CHUNK:
            needed = T.Select(word < tiling.words, needed, T.uint32(_NO_TAP))
        needed = let("needed", needed)
        first = stage * (tiling.planes * self.tile_words)
        with loop("pass", self.passes, "unroll") as index:
            copied = self._copied(index)
            ragged = tiling.tile.pixels % self.pixels_at_once != 0
            with when(copied < tiling.tile.pixels if ragged else True):
                valid = True if self.always else let("valid", (self.masks[index] & needed) == needed)
                for plane in range(tiling.planes):
                    source = self.offsets[index] + place + plane * layer.width * self.words
                    for bit, words in wraps:
                        source = source - T.Select((self.masks[index] & bit) != T.uint32(0), words, 0)
                    source = source if valid is True else T.Select(valid, source, 0)
                    to = first + plane * self.tile_words + copied * CHUNK + self.piece * tiling.copy_words
                    copy_async((self.shared, to), (self.x, source), tiling.copy_words, valid)

    def load(self, fragment: Buffer, stage: Index, subtile: Index, warp: Expr, lane: Expr) -> None:
        """Fragments of eight pixels: registers ``4 * plane + 2 * step + k`` are words ``4 * (lane % 4) + 2 * step + k``.

        Any order of the words of a chunk will do that the weights share.
        """
        tile = self.tiling.tile
        with loop("plane", self.tiling.planes, "unroll") as plane:
            pixels = (stage * self.tiling.planes + plane) * tile.pixels + subtile * MMA_PIXELS
            quad = warp * (tile.warp_pixels * LANE_WORDS) + lane
            words = self.shared[lanes_at(quad * LANE_WORDS + pixels * CHUNK, LANE_WORDS)]
            T.buffer_store(fragment, words, [lanes_at(plane * LANE_WORDS, LANE_WORDS)])


class WeightTile:
    """``stages`` tiles as ``mma_weights`` packs them, in shared memory."""

    def __init__(self, tiling: MmaTiling, weights: Buffer, thread: Expr, channel_tile: Index) -> None:
        self.tiling, self.weights, self.thread = tiling, weights, thread
        self.tile_words = tiling.tile.channels * CHUNK
        self.shared = memory("weight_tiles", tiling.stages * self.tile_words, WORD, "shared")
        self.first = channel_tile * (tiling.chunks * self.tile_words)

    def copy(self, chunk: Index, stage: Index) -> None:
        """Begin to copy a chunk."""
        threads = self.tiling.tile.threads
        copies = self.tile_words // LANE_WORDS
        with loop("pass", ceil_divide(copies, threads), "unroll") as index:
            quad = index * threads + self.thread
            with when(quad < copies if copies % threads else True):
                source = self.first + chunk * self.tile_words + quad * LANE_WORDS
                to = stage * self.tile_words + quad * LANE_WORDS
                copy_async((self.shared, to), (self.weights, source), LANE_WORDS, True)

    def load(self, fragments: Buffer, stage: Index, warp: Expr, lane: Expr) -> None:
        """Fragments of all channels of a warp: four registers for each k-step of each subtile."""
        tile = self.tiling.tile
        with loop("fragment", tile.channel_subtiles * STEPS, "unroll") as index:
            quad = warp * (tile.warp_channels * LANE_WORDS) + lane
            first = stage * self.tile_words + index * (MMA_CHANNELS * CHUNK // STEPS)
            words = self.shared[lanes_at(quad * LANE_WORDS + first, LANE_WORDS)]
            T.buffer_store(fragments, words, [lanes_at(index * LANE_WORDS, LANE_WORDS)])


def warp_position(tiling: MmaTiling, thread: Expr) -> tuple[Expr, Expr, Expr]:
    """A thread's warp over the pixels and over the channels of its block, and its lane."""
    warp, channels = thread // WARP, tiling.tile.channel_warps
    return let("pixel_warp", warp // channels), let("channel_warp", warp % channels), let("lane", thread % WARP)


def _wrapping(number: int) -> tuple[int, int]:
    """The bits of a mask that say of a pixel whether a segment's row and column wrap around; bit 0 says that it is valid."""
    return 2 << 2 * number, 4 << 2 * number


def _inside(first: Expr, kernel: int, size: int) -> Expr:
    """Bits of the places from ``first`` on that are at least 0 and below ``size``, as uint32."""
    below = T.Cast(WORD, T.max(T.min(-first, kernel), 0))
    end = T.Cast(WORD, T.max(T.min(size - first, kernel), 0))
    one = T.uint32(1)
    return ((one << end) - one) & ~((one << below) - one)
