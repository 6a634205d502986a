"""Float convolutions (NHWC x HWIO) with an epilogue, as register tiles.

A tile is some neighbouring pixels by some vectors of output channels. Its accumulators stay in registers over the whole
reduction; each vector of weights is loaded once per tile and each element of X is broadcast. Every multiply-add is one fma, in
the order (kernel row, kernel column, channel), so that the result depends neither on the tile nor on the target.

One row of taps of one pixel is contiguous in NHWC, as is one row of weights in HWIO, so that a tile inside the image runs one
loop over kernel columns and channels together. Tiles that touch the left or right border read zeros there; rows outside the
image are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.floats.frame import Epilogue, kernel_over, whole, whole_view
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    Index,
    finished,
    fused_multiply_add,
    lanes_at,
    let,
    loop,
    registers,
    spread,
    when,
)
from bnn_deploy.targets.kernels.words import ceil_divide

# (pixels, vectors) of the largest tile by float lanes of a register: accumulators, weights and a broadcast element fill the
# 32 registers of AVX-512 and NEON and the 16 of AVX2. Wide vectors make broadcasts dear, so that more pixels share a weight.
_TILES = {16: (14, 2), 8: (6, 2), 4: (6, 4)}


@dataclass(frozen=True)
class FloatConvolution:
    """Shapes of one layer.

    Attributes:
        batch, height, width, in_channels: of X.
        rows, columns, out_channels: of Y.
        kernel: height and width of the kernel.
        strides: vertical and horizontal.
        padding: rows above and columns left of X; below and right, whatever ``rows`` and ``columns`` need.
    """

    batch: int
    height: int
    width: int
    in_channels: int
    rows: int
    columns: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def pads_rows(self) -> bool:
        """Whether some taps lie above or below X."""
        return self.padding[0] > 0 or self._end(0) > self.height

    @property
    def pads_columns(self) -> bool:
        """Whether some taps lie left or right of X."""
        return self.padding[1] > 0 or self._end(1) > self.width

    def _end(self, axis: int) -> int:
        outputs = (self.rows, self.columns)[axis]
        return (outputs - 1) * self.strides[axis] + self.kernel[axis] - self.padding[axis]


@dataclass(frozen=True)
class Tile:
    """Pixels by vectors of lanes."""

    pixels: int
    vectors: int
    lanes: int


def select_tile(layer: FloatConvolution, float_lanes: int) -> Tile | None:
    """The tile for a layer on a target with ``float_lanes`` floats in a register; None when no vector divides its channels."""
    lanes = float_lanes
    while lanes > 1 and layer.out_channels % lanes:
        lanes //= 2
    if 2 * lanes < float_lanes or lanes == 1:
        return None
    pixels, vectors = _TILES[float_lanes]
    while layer.out_channels % (lanes * vectors):
        vectors -= 1
    pixels = max(1, _TILES[float_lanes][0] * _TILES[float_lanes][1] // vectors) if vectors > 1 else 2 * pixels
    pixels = min(pixels, 14, layer.columns)
    # The tile with the fewest pixels computed twice; the largest of those.
    best = min(range((pixels + 1) // 2, pixels + 1), key=lambda p: (ceil_divide(layer.columns, p) * p, -p))
    return Tile(best, vectors, lanes)


def build_convolution(
    layer: FloatConvolution,
    tile: Tile,
    parameters: list[Buffer],
    x: Buffer,
    weights: Buffer,
    y: Buffer,
    epilogue: Epilogue,
    parallel: bool,
) -> PrimFunc:
    """A kernel over ``parameters``, among them X (N, H, W, C), weights (kh, kw, C, O) and Y (N, Ho, Wo, O), all float32."""
    with kernel_over(parameters) as builder:
        image = whole_view("image", x, (layer.batch, layer.height, layer.width * layer.in_channels))
        taps = layer.kernel[1] * layer.in_channels
        matrix = whole_view("matrix", weights, (layer.kernel[0], taps, layer.out_channels))
        result = whole_view("result", y, (layer.batch, layer.rows, layer.columns, layer.out_channels))
        with loop("task", whole(layer.batch * layer.rows), "parallel" if parallel else "serial", whole(0)) as task:
            n, row = let("n", task // layer.rows), let("row", task % layer.rows)
            with loop("block", whole(layer.out_channels // (tile.lanes * tile.vectors)), start=whole(0)) as block:
                output = let("output", block * (tile.lanes * tile.vectors))
                with loop("tile", whole(ceil_divide(layer.columns, tile.pixels)), start=whole(0)) as index:
                    # The last tile of a row overlaps its neighbour.
                    column = let("column", T.min(index * tile.pixels, layer.columns - tile.pixels))
                    _Position(layer, tile, image, matrix, n, row, column, output).emit(result, epilogue)
    return finished(builder)


@dataclass(frozen=True)
class _Position:
    """One tile and its place."""

    layer: FloatConvolution
    tile: Tile
    image: Buffer
    matrix: Buffer
    n: Index
    row: Index
    column: Index
    output: Index

    def emit(self, result: Buffer, epilogue: Epilogue) -> None:
        layer, tile = self.layer, self.tile
        # One buffer per vector: TVM takes memory from a pool for buffers of 1024 bytes and more.
        total = [registers(f"total_{v}", FLOAT, tile.pixels * tile.lanes) for v in range(tile.vectors)]
        for buffer in total:
            with loop("p", tile.pixels, "unroll") as p:
                T.buffer_store(buffer, spread(T.FloatImm(FLOAT, 0), tile.lanes), [self.register(p)])
        top = let("top", self.row * layer.strides[0] - layer.padding[0])
        first, last = whole(0), whole(layer.kernel[0])
        if layer.pads_rows:
            first, last = let("first", T.max(whole(0), -top)), let("last", T.min(last, layer.height - top))
        left = let("left", self.column * layer.strides[1] - layer.padding[1])
        span = (tile.pixels - 1) * layer.strides[1] + layer.kernel[1]
        inside = T.And(left >= 0, left + span <= layer.width) if layer.pads_columns else True
        with loop("kernel_row", last - first, start=whole(0)) as offset:
            kernel_row = let("kernel", first + offset)
            with when(inside):
                self.emit_row(total, kernel_row, top + kernel_row, left)
            if inside is not True:
                with when(T.Not(inside)):
                    self.emit_border_row(total, kernel_row, top + kernel_row, left)
        for v, buffer in enumerate(total):
            with (
                loop("p", tile.pixels, "unroll") as p,
                T.vectorized(whole(0), whole(tile.lanes)) as lane,
            ):
                position = (self.n, self.row, self.column + p, self.output + v * tile.lanes + lane)
                T.buffer_store(result, epilogue(position, buffer[p * tile.lanes + lane]), list(position))

    def emit_row(self, total: list[Buffer], kernel_row: Index, row: Index, left: Index) -> None:
        """Add all taps of one kernel row, none of which is outside X."""
        layer = self.layer
        with (
            loop("tap", whole(layer.kernel[1] * layer.in_channels), start=whole(0)) as tap,
            loop("p", self.tile.pixels, "unroll") as p,
        ):
            element = self.image[self.n, row, (left + p * layer.strides[1]) * layer.in_channels + tap]
            self.add(total, p, kernel_row, tap, element)

    def emit_border_row(self, total: list[Buffer], kernel_row: Index, row: Index, left: Index) -> None:
        """Add all taps of one kernel row; X is 0 left and right of its columns."""
        layer = self.layer
        with (
            loop("kernel_column", whole(layer.kernel[1]), start=whole(0)) as kernel_column,
            loop("channel", whole(layer.in_channels), start=whole(0)) as channel,
            loop("p", self.tile.pixels, "unroll") as p,
        ):
            column = left + p * layer.strides[1] + kernel_column
            present = T.And(column >= 0, column < layer.width)
            nearest = T.max(T.min(column, layer.width - 1), 0)
            element = self.image[self.n, row, nearest * layer.in_channels + channel]
            element = T.Select(present, element, T.FloatImm(FLOAT, 0))
            self.add(total, p, kernel_row, kernel_column * layer.in_channels + channel, element)

    def add(self, total: list[Buffer], p: Index, kernel_row: Index, tap: Index, element: Expr) -> None:
        """Multiply one element of X with its weights and add to the registers of pixel ``p``."""
        lanes, register = self.tile.lanes, self.register(p)
        for v, buffer in enumerate(total):
            weights = self.matrix[kernel_row, tap, lanes_at(self.output + v * lanes, lanes)]
            value = fused_multiply_add(spread(element, lanes), weights, buffer[register], lanes)
            T.buffer_store(buffer, value, [register])

    def register(self, p: Index) -> Index:
        """Index of pixel ``p``'s register in the buffer of its vector."""
        return lanes_at(p * self.tile.lanes, self.tile.lanes)
