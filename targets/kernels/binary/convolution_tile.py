"""The statements of one register tile of a binary convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.counting_tiling import CountingTiling
from bnn_deploy.targets.kernels.binary.tasks import Task
from bnn_deploy.targets.kernels.binary.tile_store import TileStore
from bnn_deploy.targets.kernels.operands import Load, differing_bits
from bnn_deploy.targets.kernels.vector import (
    BYTE,
    FLOAT,
    INTEGER,
    WORD,
    Index,
    cast,
    constant,
    fused_multiply_add,
    lanes_at,
    let,
    loop,
    popcount_bytes,
    registers,
    spread,
    sum_of_bytes,
    when,
)
from bnn_deploy.targets.kernels.words import ceil_divide


@dataclass(frozen=True)
class TilePosition:
    """Where a tile lies.

    Attributes:
        task: its image and row.
        column: first output column.
        block, group, output: block of weights, group, first output channel.
    """

    task: Task
    column: Index
    block: Index
    group: Index
    output: Index


class ConvolutionTile:
    """Emits one tile's statements; ``differing`` counts products of -1, ``valid`` all products that are not 0.

    With a scale per tap both are counted per tap; otherwise ``valid`` is given, see ``valid_products``.
    """

    def __init__(
        self, tiling: CountingTiling, position: TilePosition, load: Load, weights: Buffer, scale: Buffer, valid: Buffer
    ) -> None:
        self.tiling, self.layer, self.tile, self.position = tiling, tiling.specification, tiling.tile, position
        self.load, self.weights, self.scale, self.valid = load, weights, scale, valid
        self.lanes = self.tile.lanes
        cells = self.tile.pixels * self.tile.block
        self.differing = registers("differing", INTEGER, cells)
        if any(self.layer.pads):
            self.mask = registers("mask", WORD, self.tile.pixels)
        if self.tile.counter == "byte":
            self.counters = registers("counters", BYTE, 4 * cells)
        if self.layer.tap_scaled:
            self.total = registers("total", FLOAT, cells)
            with self.cells() as (p, v):
                self.assign(self.total, p, v, constant(0, FLOAT, self.lanes))

    @contextmanager
    def cells(self) -> Iterator[tuple[Index, Index]]:
        """Loops over the pixels and vectors of the tile."""
        with loop("p", self.tile.pixels, "unroll") as p, loop("v", self.tile.vectors, "unroll") as v:
            yield p, v

    def at(self, buffer: Buffer, p: Index, v: Index) -> Index:
        """Index in ``buffer`` of the register of pixel ``p`` and vector ``v``."""
        size = self.lanes * (4 if buffer.dtype == BYTE else 1)
        return lanes_at((p * self.tile.vectors + v) * size, size)

    def assign(self, buffer: Buffer, p: Index, v: Index, value: Expr) -> None:
        """Store ``value`` in the register of pixel ``p`` and vector ``v``."""
        T.buffer_store(buffer, value, [self.at(buffer, p, v)])

    def add(self, buffer: Buffer, p: Index, v: Index, value: Expr) -> None:
        """Add ``value`` to the register of pixel ``p`` and vector ``v``."""
        self.assign(buffer, p, v, buffer[self.at(buffer, p, v)] + value)

    def clear(self) -> None:
        """Set ``differing``, and ``valid`` when it is counted per tap, to 0."""
        if self.layer.tap_scaled:
            with loop("p", self.tile.pixels, "unroll") as p:
                T.buffer_store(self.valid, constant(0, INTEGER), [p])
        with self.cells() as (p, v):
            self.assign(self.differing, p, v, constant(0, INTEGER, self.lanes))

    def is_inside(self) -> Expr | bool:
        """Whether no pixel of the tile has a tap in a padded column."""
        _, left, _, right = self.layer.pads
        if left == 0 and right == 0:
            return True
        first = self.position.column * self.layer.strides[1] - left
        span = (self.tile.pixels - 1) * self.layer.strides[1] + self.layer.kernel_shape[1]
        return T.And(first >= 0, first + span <= self.layer.width)

    def emit_taps(self, masked: bool) -> None:
        """Count over all taps."""
        kernel_rows, kernel_columns = self.layer.kernel_shape
        with self.flushed("layer"), loop("kernel_row", kernel_rows) as kernel_row:
            row = let("image_row", self.position.task.row * self.layer.strides[0] + kernel_row - self.layer.pads[0])
            padded_rows = self.layer.pads[0] > 0 or self.layer.pads[2] > 0
            inside = T.And(row >= 0, row < self.tiling.height) if padded_rows else True
            with when(inside), self.flushed("row"), loop("kernel_column", kernel_columns) as kernel_column:
                self.emit_tap(row, kernel_row, kernel_column, masked)

    def emit_tap(self, row: Index, kernel_row: Index, kernel_column: Index, masked: bool) -> None:
        """Count over the words of one tap; with a scale per tap, also scale and add to ``total``."""
        tap = let("tap", kernel_row * self.layer.kernel_shape[1] + kernel_column)
        if self.layer.tap_scaled:
            self.clear()
        if masked:
            with loop("p", self.tile.pixels, "unroll") as p:
                column = self.image_column(p, kernel_column)
                inside = T.And(column >= 0, column < self.tiling.width)
                everything, nothing = constant(0xFFFFFFFF, WORD), constant(0, WORD)
                T.buffer_store(self.mask, T.Select(inside, everything, nothing), [p])
        if self.layer.tap_scaled and not self.layer.ternary:
            with loop("p", self.tile.pixels, "unroll") as p:
                channels = constant(self.layer.group_channels, INTEGER)
                visible = channels & T.Cast(INTEGER, self.mask[p]) if masked else channels
                T.buffer_store(self.valid, visible, [p])
        size, words = self.tiling.chunk_words, self.tiling.group_words
        with self.flushed("tap"), loop("word_chunk", ceil_divide(words, size)) as chunk, self.flushed("chunk"):
            left = T.min(size, words - chunk * size) if words % size else size
            with loop("k", left) as k:
                self.emit_word(row, kernel_column, tap, chunk * size + k, masked)
        if self.layer.tap_scaled:
            with self.cells() as (p, v):
                scale = self.scale[tap, self.outputs(v)]
                total = self.total[self.at(self.total, p, v)]
                self.assign(self.total, p, v, fused_multiply_add(self.dot_product(p, v), scale, total, self.lanes))

    def emit_word(self, row: Index, kernel_column: Index, tap: Index, word: Index, masked: bool) -> None:
        """Count one word of one tap for every pixel and output channel of the tile."""
        position = self.position
        with loop("p", self.tile.pixels, "unroll") as p:
            column = self.image_column(p, kernel_column)
            if masked:
                column = T.max(T.min(column, self.tiling.width - 1), 0)
            values = self.load(position.task.n, row, column, position.group, word)
            if self.layer.ternary:
                if masked:
                    values = tuple(value & self.mask[p] for value in values)
                if self.layer.tap_scaled:
                    T.buffer_store(self.valid, self.valid[p] + T.Cast(INTEGER, T.popcount(values[0])), [p])
            with loop("v", self.tile.vectors, "unroll") as v:
                weights = self.weights[position.block, tap, word, v, lanes_at(0, self.lanes)]
                bits = differing_bits(values, weights, self.lanes)
                if masked and not self.layer.ternary:
                    bits = bits & spread(self.mask[p], self.lanes)
                if self.tile.counter == "byte":
                    self.add(self.counters, p, v, popcount_bytes(bits, self.lanes))
                else:
                    self.add(self.differing, p, v, cast(T.popcount(bits), INTEGER, self.lanes))

    @contextmanager
    def flushed(self, level: str) -> Iterator[None]:
        """Clear the byte counters before the block and widen them into ``differing`` after it, at their level."""
        if self.tiling.flush != level:
            yield
            return
        with self.cells() as (p, v):
            self.assign(self.counters, p, v, constant(0, BYTE, 4 * self.lanes))
        yield
        with self.cells() as (p, v):
            counts = self.counters[self.at(self.counters, p, v)]
            self.add(self.differing, p, v, sum_of_bytes(counts, self.lanes))

    def image_column(self, p: Index, kernel_column: Index) -> Index:
        """Column of X that a tap of pixel ``p`` reads; it may lie in the padding."""
        return (self.position.column + p) * self.layer.strides[1] + kernel_column - self.layer.pads[1]

    def outputs(self, v: Index) -> Index:
        """Output channels of vector ``v``."""
        return lanes_at(self.position.output + v * self.lanes, self.lanes)

    def dot_product(self, p: Index, v: Index) -> Expr:
        """``valid - 2 * differing`` as float32."""
        differing = self.differing[self.at(self.differing, p, v)]
        return cast(spread(self.valid[p], self.lanes) - (differing + differing), FLOAT, self.lanes)

    def store(self, shift: Buffer, result: TileStore) -> None:
        """Scale and shift the tile and hand it to ``result``."""
        with loop("p", self.tile.pixels, "unroll") as p:
            vectors = []
            for v in range(self.tile.vectors):
                outputs = self.outputs(v)
                if self.layer.tap_scaled:
                    value = self.total[self.at(self.total, p, v)] + shift[outputs]
                else:
                    value = fused_multiply_add(self.dot_product(p, v), self.scale[outputs], shift[outputs], self.lanes)
                vectors.append(value)
            position = self.position
            result.store((*position.task.result_pixel, position.column + p), position.output, vectors, self.lanes)
