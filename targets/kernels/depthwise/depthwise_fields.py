"""Depthwise layers of any shape: the fields of one word of one pixel at a time.

The xor with the weights, packed like X, is one scalar operation for all fields of a word; so is counting within the
fields. Then each lane shifts its own field down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.depthwise.operands import Operands
from bnn_deploy.targets.kernels.operands import differing_bits
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import (
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
    registers,
    spread,
    when,
)
from bnn_deploy.targets.kernels.words import WORD_BITS

# (image, row, column) of an output
Pixel = tuple[Index, Index, Index]


def field_counts(bits: Expr, width: int) -> Expr:
    """Every field of ``width`` bits of the word replaced by the number of bits set in it."""
    shift = 1
    while shift < width:
        # The lower half of every field of 2 * shift bits; the sum of both halves fits in them.
        mask = constant(sum(((1 << shift) - 1) << start for start in range(0, WORD_BITS, 2 * shift)), WORD)
        bits = (bits & mask) + ((bits >> constant(shift, WORD)) & mask)
        shift *= 2
    return bits


class FieldEmitter:
    """Emits the statements for some neighbouring fields of one word of one output pixel."""

    def __init__(self, layer: ConvolutionSpecification, operands: Operands) -> None:
        """``operands``: the image as ``layer.plane_shape``."""
        self.layer, self.image, self.weights = layer, operands.image, operands.weights
        self.scale, self.shift, self.y = operands.scale, operands.shift, operands.result

    @contextmanager
    def taps(self, position: Pixel) -> Iterator[tuple[Index, Index, Index]]:
        """Loops over the taps that do not fall into the padding: (tap, row of X, column of X)."""
        layer = self.layer
        (kernel_rows, kernel_columns), (top, left, bottom, right) = layer.kernel_shape, layer.pads
        with loop("kernel_row", kernel_rows) as kernel_row:
            row = let("image_row", position[1] * layer.strides[0] + kernel_row - top)
            row_inside = T.And(row >= 0, row < layer.height) if top or bottom else True
            with when(row_inside), loop("kernel_column", kernel_columns) as kernel_column:
                column = let("image_column", position[2] * layer.strides[1] + kernel_column - left)
                column_inside = T.And(column >= 0, column < layer.width) if left or right else True
                with when(column_inside):
                    yield kernel_row * kernel_columns + kernel_column, row, column

    def emit(self, position: Pixel, result: Pixel, word: Index, field: Index, lanes: int, vectors: int) -> None:
        """Compute ``lanes * vectors`` output channels from field ``field`` of word ``word``; ``result``: where they go."""
        layer = self.layer
        width = layer.group_channels

        def at(v: Index) -> Index:
            return lanes_at(v * lanes, lanes)

        def outputs(v: Index) -> Index:
            return lanes_at(word * WORD_BITS // layer.group_channels + field + v * lanes, lanes)

        def unpacked(counts: Expr, v: Index) -> Expr:
            first = T.Cast(WORD, (field + v * lanes) * width)
            shifts = first if lanes == 1 else T.ramp(first, constant(width, WORD), lanes)
            return cast((spread(counts, lanes) >> shifts) & constant((1 << width) - 1, WORD, lanes), INTEGER, lanes)

        def accumulate(buffer: Buffer, v: Index, value: Expr) -> None:
            T.buffer_store(buffer, buffer[at(v)] + value, [at(v)])

        def dot_product(valid: Expr, differing: Expr) -> Expr:
            return cast(valid - (differing + differing), FLOAT, lanes)

        # What is summed over the taps: products of -1 and products that are not 0, or scaled dot products.
        differing = registers("differing", INTEGER, lanes * vectors)
        valid = registers("valid", INTEGER, lanes * vectors)
        total = registers("total", FLOAT, lanes * vectors)
        with loop("v", vectors, "unroll") as v:
            T.buffer_store(differing, constant(0, INTEGER, lanes), [at(v)])
            T.buffer_store(valid, constant(0, INTEGER, lanes), [at(v)])
            T.buffer_store(total, constant(0, FLOAT, lanes), [at(v)])
        with self.taps(position) as (tap, row, column):
            differing_counts, valid_counts = self.counts(position[0], row, column, tap, word)
            with loop("v", vectors, "unroll") as v:
                tap_valid = constant(width, INTEGER, lanes) if valid_counts is None else unpacked(valid_counts, v)
                if layer.tap_scaled:
                    dot = dot_product(tap_valid, unpacked(differing_counts, v))
                    scaled = fused_multiply_add(dot, self.scale[tap, outputs(v)], total[at(v)], lanes)
                    T.buffer_store(total, scaled, [at(v)])
                else:
                    accumulate(differing, v, unpacked(differing_counts, v))
                    accumulate(valid, v, tap_valid)
        with loop("v", vectors, "unroll") as v:
            if layer.tap_scaled:
                value = total[at(v)] + self.shift[outputs(v)]
            else:
                dot = dot_product(valid[at(v)], differing[at(v)])
                value = fused_multiply_add(dot, self.scale[outputs(v)], self.shift[outputs(v)], lanes)
            T.buffer_store(self.y, value, [*result, outputs(v)])

    def counts(self, n: Index, row: Index, column: Index, tap: Index, word: Index) -> tuple[Expr, Expr | None]:
        """One tap of one word: fields that count products of -1 and, unless they all do, products that are not 0."""
        layer = self.layer
        words = tuple(self.image[n, row, plane, column, word] for plane in range(layer.planes))
        differing = differing_bits(words, self.weights[tap, word], lanes=1)
        counts = let("differing_counts", field_counts(differing, layer.group_channels))
        if not layer.ternary:
            return counts, None
        return counts, let("valid_counts", field_counts(words[0], layer.group_channels))
