"""The end of a tile of the mma kernel: counts to dot products, and to what the layer stores.

A lane has four neighbouring channels of each group of 32, of two pixels of each eight: it stores 16 bytes at once, and eight
lanes 128 bytes of a pixel. Four ballots are the packed signs of 32 channels of four pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.cuda.device_functions import ballot
from bnn_deploy.targets.cuda.kernels.mma_counts import ActivationCounts
from bnn_deploy.targets.cuda.kernels.mma_operands import memory
from bnn_deploy.targets.cuda.kernels.mma_tiling import MMA_PIXELS, MmaTiling
from bnn_deploy.targets.cuda.kernels.mma_weights import Formula, classes, formula, tile_words
from bnn_deploy.targets.cuda.kernels.result import Result
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, Index, lanes_at, let, loop, shuffled, when
from bnn_deploy.targets.kernels.words import WORD_BITS


@dataclass(frozen=True)
class _Base:
    """What dot products start from, for pixels of every class."""

    tiling: MmaTiling
    formula: Formula
    weights: Buffer

    def of_pixel(self, pixel: Expr) -> Expr | int:
        """Index of the bases of a pixel's class in the array of weights."""
        layer = self.tiling.specification
        first = tile_words(self.tiling)
        if self.formula.base is not None or classes(layer) == 1:
            return first
        _, rows, columns, outputs = layer.image_output_shape
        row_classes = first + classes(layer) * outputs
        row_class = self.weights[row_classes + pixel // columns % rows]
        column_class = self.weights[row_classes + rows + pixel % columns]
        return first + let("pixel_class", T.Cast(INTEGER, row_class + column_class)) * outputs

    def of_outputs(self, bases: Expr | int, output: Expr, lanes: int) -> list[Expr]:
        """For neighbouring output channels."""
        if self.formula.base is not None:
            return [T.int32(self.formula.base)] * lanes
        loaded = let("base", self.weights[lanes_at(bases + output, lanes)])
        found = [loaded] if lanes == 1 else [shuffled([loaded], [lane]) for lane in range(lanes)]
        return [T.Cast(INTEGER, base) for base in found]


@dataclass(frozen=True)
class TilePlace:
    """Where a lane works: tiles of the layer's pixels and channels, warps of the tile, and the lane of the warp."""

    pixel_tile: Expr
    channel_tile: Expr
    pixel_warp: Expr
    channel_warp: Expr
    lane: Expr


class TileStore:
    """Stores what a warp computed.

    Four channels at a time of one pixel, and after all of a group of 32 the words of their signs.
    """

    def __init__(
        self,
        tiling: MmaTiling,
        counted: tuple[Buffer, ActivationCounts],
        weights: Buffer,
        result: Result,
        place: TilePlace,
    ) -> None:
        self.tiling, self.layer, self.tile = tiling, tiling.specification, tiling.tile
        self.sums, self.counts = counted
        self.result, self.place = result, place
        self.formula = formula(tiling)
        self.base = _Base(tiling, self.formula, weights)
        self.quarter = let("quarter", place.lane % 4)
        # Variables would hide from TVM's code generator that an index is a multiple of 4, and it would load one by one.
        self.quad, self.pixel = memory("channel_quad", 1, INTEGER, "local"), memory("pixel", 1, INTEGER, "local")
        tile_groups = self.tile.channels // WORD_BITS
        self.first_word = place.channel_tile * tile_groups + place.channel_warp * (self.tile.warp_channels // WORD_BITS)
        self.first_pixel = let("first_pixel", place.pixel_warp * self.tile.warp_pixels + self.quarter * 2)
        if result.planes:
            self.signs = memory("signs", 4 * result.planes, WORD, "local")
            self.votes = memory("votes", 4, WORD, "local")
        # Neighbouring channels that are stored at once.
        self.lanes = next(count for count in (4, 2, 1) if self.layer.out_channels % count == 0)
        result.hold(4)

    def emit(self) -> None:
        """Go over the groups of 32 channels, and over the pixels."""
        tiling, tile = self.tiling, self.tile
        with loop("group", tile.channel_subtiles // 2, "unroll") as group:
            word = let("word", self.first_word + group)
            T.buffer_store(self.quad, word * (WORD_BITS // 4) + self.place.lane // 4, [0])
            for output, channel, has_output in self._outputs():
                with when(has_output):
                    self.result.fetch(output, channel, self.lanes)
            with loop("subtile", tile.pixel_subtiles, "unroll") as subtile, loop("side", 2, "unroll") as side:
                pixel = self.first_pixel + (subtile * MMA_PIXELS + side)
                T.buffer_store(self.pixel, self.place.pixel_tile * tile.pixels + pixel, [0])
                there = self.pixel[0] < tiling.pixels if tiling.pixels % tile.pixels else True
                for plane in range(self.result.planes):
                    T.buffer_store(self.signs, T.broadcast(T.uint32(0), 4), [T.ramp(plane * 4, 1, 4)])
                with when(there):
                    bases = self.base.of_pixel(self.pixel[0])
                    count = let("count", self.counts.count(pixel)) if self.formula.beta else 0
                    self._store_channels(bases, count, (group * 2 * tile.pixel_subtiles + subtile) * 4 + side)
                for plane in range(self.result.planes):
                    self._store_signs(plane, word, there)

    def _outputs(self) -> Iterator[tuple[Expr, int, Expr | bool]]:
        """Of a lane's four channels: the output channel, which of the four, and whether there is such an output."""
        for channel in range(0, 4, self.lanes):
            output = self.quad[0] * 4 + channel
            yield (
                output,
                channel,
                output < self.layer.out_channels if self.layer.out_channels % self.tile.channels else True,
            )

    def _store_channels(self, bases: Expr | int, count: Expr | int, first: Index) -> None:
        """Four channels of a pixel; ``first`` is the sum of the first of them."""
        rule, result, pixel = self.formula, self.result, self.pixel
        for output, channel, has_output in self._outputs():
            with when(has_output):
                places = range(channel, channel + self.lanes)
                # Row 8 h of mma i is channel 2 i + h.
                row_sums = self.tile.pixel_subtiles * 4
                counted = [self.sums[first + place // 2 * row_sums + place % 2 * 2] for place in places]
                starts = self.base.of_outputs(bases, output, self.lanes)
                dots = [start + rule.alpha * own for start, own in zip(starts, counted, strict=True)]
                dots = [dot + rule.beta * count for dot in dots] if rule.beta else dots
                values = result.computed(result.scaled(dots, output, channel), pixel[0], output, channel)
                result.store(values, pixel[0], output)
                for plane in range(result.planes):
                    for place, sign in zip(places, result.signs(plane, values, output, channel), strict=True):
                        T.buffer_store(self.signs, T.Cast(WORD, sign), [plane * 4 + place])

    def _store_signs(self, plane: int, word: Expr, there: Expr | bool) -> None:
        """The word of 32 channels of four pixels, from the signs that the lanes hold."""
        for channel in range(4):
            ballot((self.votes, channel), (self.signs, plane * 4 + channel))
        stores = T.And(self.place.lane < 4, word < self.layer.out_channels // WORD_BITS)
        with when(stores if there is True else T.And(there, stores)):
            # Bit 4 g + t of ballot c is channel 4 g + c of pixel t.
            parts = [
                ((self.votes[c] >> T.Cast(WORD, self.quarter)) & T.uint32(0x11111111)) << T.uint32(c) for c in range(4)
            ]
            self.result.store_word(plane, (parts[0] | parts[1]) | (parts[2] | parts[3]), self.pixel[0], word)
