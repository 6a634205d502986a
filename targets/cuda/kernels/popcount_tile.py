"""The pixels of a block in shared memory: their words tap by tap, and what their dot products would be if no bits differed.

A lane copies words of one pixel, all lanes of a warp for the same place of their windows: where a pixel lies in the image is
computed once, which tap a word belongs to is the same for the whole warp, and neighbouring lanes read neighbouring pixels.
"""

from __future__ import annotations

from math import prod

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.cuda.device_functions import barrier
from bnn_deploy.targets.cuda.kernels.popcount_tiling import LANES
from bnn_deploy.targets.cuda.kernels.popcount_weights import WeightLayout
from bnn_deploy.targets.cuda.kernels.shifted_words import by_segment
from bnn_deploy.targets.kernels.operands import group_word_loader
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, constant, lanes_at, let, loop, shuffled, view, when
from bnn_deploy.targets.kernels.words import ceil_divide

# Registers of a lane for words that are on their way to shared memory.
_MOST_UNDER_WAY = 16


class PixelTile:
    """The words of a block's output pixels, ``tiling.chunk`` of each at a time."""

    def __init__(
        self, layout: WeightLayout, x: Buffer, weights: Buffer, first_pixel: Expr, place: tuple[Expr, Expr, Expr]
    ) -> None:
        """``place``: (group, warp, lane) of this thread."""
        self.layout, self.tiling, self.layer = layout, layout.tiling, layout.tiling.specification
        self.weights = weights
        self.group, self.warp, self.lane = place
        tiling, layer = self.tiling, self.layer
        self._load = group_word_loader(view("image", x, layer.plane_shape), layer)
        self._flat = view("flat", x, (prod(layer.plane_shape),))
        self._plane = tiling.block_pixels * tiling.row
        self._place = T.alloc_buffer((1,), INTEGER, scope="local")
        self._words = T.alloc_buffer((tiling.planes * self._plane,), WORD, scope="shared")
        _, rows, columns, _ = layer.image_output_shape
        # Lanes beyond the last pixel copy it again.
        pixel = let("copied_pixel", T.min(first_pixel + self.lane, tiling.output_pixels - 1))
        self._n = let("n", pixel // (rows * columns))
        row, column = let("output_row", pixel // columns % rows), let("output_column", pixel % columns)
        self._row = let("first_row", row * layer.strides[0] - layer.pads[0])
        self._column = let("first_column", column * layer.strides[1] - layer.pads[1])
        # Units that a warp copies at once: turns as few as the registers allow, and as equal as possible.
        units = ceil_divide(tiling.chunk // tiling.copied, tiling.warps)
        self._at_once = ceil_divide(units, ceil_divide(units * tiling.copied * tiling.planes, _MOST_UNDER_WAY))
        image_row = self._n * layer.height + self._row
        self._origin = let("origin", image_row * (tiling.planes * layer.width) + self._column)
        self._copies = self.lane < tiling.block_pixels if tiling.block_pixels < LANES else True
        if layer.ternary:
            self._own_nonzeros = T.alloc_buffer((1,), INTEGER, scope="local")
            self._nonzeros = T.alloc_buffer((tiling.warps * LANES,), INTEGER, scope="shared")
            T.buffer_store(self._own_nonzeros, constant(0, INTEGER), [0])
        elif tiling.corrected:
            self._classes = T.alloc_buffer((LANES,), INTEGER, scope="shared")
            with when(self.warp == 0):
                found = weights[layout.rows_start + row] + weights[layout.columns_start + column]
                T.buffer_store(self._classes, T.Cast(INTEGER, found), [self.lane])

    def fill(self, chunk: Expr) -> None:
        """Copy the words of a chunk. Barriers must stand before, unless it is the first, and after it."""
        tiling = self.tiling
        units, warps, at_once = tiling.chunk // tiling.copied, tiling.warps, self._at_once
        with when(self._copies), loop("turn", ceil_divide(units, warps * at_once)) as turn:
            places = [let("unit", (turn * at_once + i) * warps + self.warp) for i in range(at_once)]
            # All loads first, so that a warp waits once.
            loaded = [self._loaded(let("of_window", chunk * units + unit)) for unit in places]
            for unit, values in zip(places, loaded, strict=True):
                with when(unit < units if units % (warps * at_once) else True):
                    self._keep(unit, values)

    def share(self) -> None:
        """Once after all chunks: let the other warps read what this one has counted."""
        if self.layer.ternary:
            T.buffer_store(self._nonzeros, self._own_nonzeros[0], [self.warp * LANES + self.lane])
            barrier()

    def words(self, pixel: Expr, word: Expr, count: int) -> list[Expr]:
        """``count`` words of a chunk, for each plane."""
        start = pixel * self.tiling.row + word
        return [self._words[lanes_at(plane * self._plane + start, count)] for plane in range(self.tiling.planes)]

    def base(self, pixel: Expr, lane: Expr) -> Expr:
        """What the dot product of a pixel with the weights of ``lane`` (of all tiles) is if no bits differ, int32."""
        if self.layer.ternary:
            counts = [self._nonzeros[warp * LANES + pixel] for warp in range(self.tiling.warps)]
            return sum(counts[1:], counts[0])
        if not self.tiling.corrected:
            return constant(self.layer.weight_bits, INTEGER)
        found = self.weights[self.layout.bases_start + self._classes[pixel] * self.layout.outputs + lane]
        return T.reinterpret(INTEGER, let("base", found))

    def _loaded(self, unit: Expr) -> list[Expr]:
        """A unit of the window, for each plane; 0 where there is none."""
        tiling, layer = self.tiling, self.layer
        count, tap_units = tiling.copied, tiling.group_words // tiling.copied
        tap = let("tap", unit // tap_units)
        row = let("row", self._row + tap // layer.kernel_shape[1])
        column = let("column", self._column + tap % layer.kernel_shape[1])
        own = unit % tap_units
        if layer.shifts:
            row, column, own = self._shifted(own)
        conditions = []
        if any(layer.pads):
            conditions += [row >= 0, row < layer.height, column >= 0, column < layer.width]
        if tiling.chunks * tiling.chunk > tiling.words or tiling.chunk // count % (tiling.warps * self._at_once):
            conditions.append(tap < layer.taps)
        if count == 1:
            loaded = list(self._load(self._n, row, column, self.group, own))
        else:
            image_units = layer.group * tap_units
            of_tap = tap // layer.kernel_shape[1] * (tiling.planes * layer.width) + tap % layer.kernel_shape[1]
            pixel = self._origin + of_tap
            if layer.shifts:
                pixel = (self._n * layer.height + row) * layer.width + column
            place = pixel * image_units + self.group * tap_units + own
            # Behind a load, which is no common subexpression, it stays visible that the index is aligned.
            T.buffer_store(self._place, place, [0])
            starts = (
                self._place[0] * count + plane * layer.width * image_units * count for plane in range(tiling.planes)
            )
            loaded = [self._flat[lanes_at(start, count)] for start in starts]
        inside = let("inside", _all(conditions)) if conditions else True
        if inside is not True:
            loaded = [T.if_then_else(inside, value, constant(0, WORD, count)) for value in loaded]
        return [let("loaded", value) for value in loaded]

    def _shifted(self, unit: Expr) -> tuple[Expr, Expr, Expr]:
        """Row, column and unit of X that a unit of the window is."""
        layer, count = self.layer, self.tiling.copied
        word = let("word", unit * count)
        row = let("moved_row", self._row + by_segment(layer, word, lambda _, segment: segment.rows))
        column = let("moved_column", self._column + by_segment(layer, word, lambda _, segment: segment.columns))
        row = let("row", T.Select(row >= layer.height, row - layer.height, row))
        column = let("column", T.Select(column >= layer.width, column - layer.width, column))
        return row, column, unit + by_segment(layer, word, lambda _, segment: segment.offset // count)

    def _keep(self, unit: Expr, values: list[Expr]) -> None:
        tiling = self.tiling
        for plane, value in enumerate(values):
            start = plane * self._plane + self.lane * tiling.row + unit * tiling.copied
            T.buffer_store(self._words, value, [lanes_at(start, tiling.copied)])
        if self.layer.ternary:
            self._count_nonzeros(values[0])

    def _count_nonzeros(self, words: Expr) -> None:
        count = self.tiling.copied
        parts = [words] if count == 1 else [shuffled([words], [part]) for part in range(count)]
        bits = [T.Cast(INTEGER, T.popcount(part)) for part in parts]
        T.buffer_store(self._own_nonzeros, sum(bits, self._own_nonzeros[0]), [0])


def _all(conditions: list[Expr]) -> Expr:
    result = conditions[0]
    for condition in conditions[1:]:
        result = T.And(result, condition)
    return result
