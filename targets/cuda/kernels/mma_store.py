"""The end of a tile of the mma kernel: counts to dot products, and to what the layer stores.

A lane has four neighbouring channels of each group of 32, of two pixels of each eight: it stores 16 bytes at once, and eight
lanes 128 bytes of a pixel. Four ballots are the packed signs of 32 channels of four pixels.
"""

from __future__ import annotations

from collections.abc import Callable
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
from bnn_deploy.targets.kernels.specification import WORD_BITS
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, Index, lanes_at, let, loop, shuffled, when


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


def store_tile(
    tiling: MmaTiling,
    counted: tuple[Buffer, ActivationCounts],
    weights: Buffer,
    result: Result,
    tile_position: tuple[Expr, Expr],
    position: tuple[Expr, Expr, Expr],
) -> None:
    """Store all that a warp computed."""
    layer, tile = tiling.specification, tiling.tile
    sums, counts = counted
    rule = formula(tiling)
    base = _Base(tiling, rule, weights)
    pixel_warp, channel_warp, lane = position
    quarter = let("quarter", lane % 4)
    # Variables would hide from TVM's code generator that an index is a multiple of 4, and it would load one by one.
    quad, pixel_at = memory("channel_quad", 1, INTEGER, "local"), memory("pixel", 1, INTEGER, "local")
    first_word = tile_position[1] * (tile.channels // WORD_BITS) + channel_warp * (tile.warp_channels // WORD_BITS)
    first_pixel = let("first_pixel", pixel_warp * tile.warp_pixels + quarter * 2)
    signs = memory("signs", 4 * result.planes, WORD, "local") if result.planes else None
    votes = memory("votes", 4, WORD, "local") if result.planes else None
    lanes = next(count for count in (4, 2, 1) if layer.out_channels % count == 0)
    result.hold(4)

    def for_each_output(act: Callable[[Expr, int], None]) -> None:
        for channel in range(0, 4, lanes):
            output = quad[0] * 4 + channel
            with when(output < layer.out_channels if layer.out_channels % tile.channels else True):
                act(output, channel)

    def store_channels(bases: Expr | int, count: Expr | int, first: Index) -> None:
        """Four channels; ``first`` is the sum of the first of them."""

        def act(output: Expr, channel: int) -> None:
            places = range(channel, channel + lanes)
            # Row 8 h of mma i is channel 2 i + h.
            counted_here = [sums[first + place // 2 * (tile.pixel_subtiles * 4) + place % 2 * 2] for place in places]
            starts = base.of_outputs(bases, output, lanes)
            dots = [start + rule.alpha * own for start, own in zip(starts, counted_here, strict=True)]
            dots = [dot + rule.beta * count for dot in dots] if rule.beta else dots
            values = result.computed(result.scaled(dots, output, channel), pixel_at[0], output, channel)
            result.store(values, pixel_at[0], output)
            for plane in range(result.planes):
                for place, sign in zip(places, result.signs(plane, values, output, channel), strict=True):
                    T.buffer_store(signs, T.Cast(WORD, sign), [plane * 4 + place])

        for_each_output(act)

    with loop("group", tile.channel_subtiles // 2, "unroll") as group:
        word = let("word", first_word + group)
        T.buffer_store(quad, word * (WORD_BITS // 4) + lane // 4, [0])
        for_each_output(lambda output, channel: result.fetch(output, channel, lanes))
        with loop("subtile", tile.pixel_subtiles, "unroll") as subtile, loop("side", 2, "unroll") as side:
            place = first_pixel + (subtile * MMA_PIXELS + side)
            T.buffer_store(pixel_at, tile_position[0] * tile.pixels + place, [0])
            there = pixel_at[0] < tiling.pixels if tiling.pixels % tile.pixels else True
            for plane in range(result.planes):
                T.buffer_store(signs, T.broadcast(T.uint32(0), 4), [T.ramp(plane * 4, 1, 4)])
            with when(there):
                bases = base.of_pixel(pixel_at[0])
                count = let("count", counts.count(place)) if rule.beta else 0
                first = (group * 2 * tile.pixel_subtiles + subtile) * 4 + side
                store_channels(bases, count, first)
            for plane in range(result.planes):
                for channel in range(4):
                    ballot((votes, channel), (signs, plane * 4 + channel))
                stores = T.And(lane < 4, word < layer.out_channels // WORD_BITS)
                with when(stores if there is True else T.And(there, stores)):
                    # Bit 4 g + t of ballot c is channel 4 g + c of pixel t.
                    parts = [
                        ((votes[c] >> T.Cast(WORD, quarter)) & T.uint32(0x11111111)) << T.uint32(c) for c in range(4)
                    ]
                    result.store_word(plane, (parts[0] | parts[1]) | (parts[2] | parts[3]), pixel_at[0], word)
