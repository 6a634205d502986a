"""The activations of one output pixel as the carry-save convolution reads them: all taps' words, as running xors."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.carry_save_tiling import VECTOR_WORDS, CarrySaveTiling
from bnn_deploy.targets.kernels.valid_products import taps_inside
from bnn_deploy.targets.kernels.vector import (
    BYTE,
    WORD,
    Index,
    constant,
    lanes_at,
    let,
    loop,
    registers,
    spread,
    when,
)

BYTES = f"{BYTE}x16"
# Vectors of a tap copied without a loop.
LARGEST_UNROLLED_COPY = 8


class PixelWords:
    """Emits what one output pixel needs before its blocks of channels: the running xors and the valid products."""

    def __init__(
        self, tiling: CarrySaveTiling, image: Buffer, n: Index, row: Index, column: Index, group: Index
    ) -> None:
        layer = tiling.specification
        self.tiling, self.layer, self.image, self.n, self.group = tiling, layer, image, n, group
        self.first_row = let("first_row", row * layer.strides[0] - layer.pads[0])
        self.first_column = let("first_column", column * layer.strides[1] - layer.pads[1])
        top, left, bottom, right = layer.pads
        self.taps = taps_inside(self.first_row, layer.kernel_shape[0], tiling.height, top, bottom) * taps_inside(
            self.first_column, layer.kernel_shape[1], tiling.width, left, right
        )
        self.valid = let("valid", self.taps * layer.group_channels)
        self.direct = layer.taps == 1 and not tiling.padded and tiling.pixel_words % tiling.width_words == 0
        if not (self.direct and tiling.resident):
            self.words = registers("words", WORD, tiling.steps * tiling.width_words)
        if not self.direct:
            self.gather()
        self.vectors = self.running_xors()

    def tap_inside(self, kernel_row: Index, kernel_column: Index) -> Expr | bool:
        """Whether a tap lies inside the image."""
        row, column = self.first_row + kernel_row, self.first_column + kernel_column
        if not self.tiling.padded:
            return True
        return T.And(T.And(row >= 0, row < self.tiling.height), T.And(column >= 0, column < self.tiling.width))

    def image_words(self, kernel_row: Index, kernel_column: Index, word: Index, count: int) -> Expr:
        """``count`` neighbouring words of a tap."""
        first = self.group * self.tiling.group_words + word
        position = (self.n, self.first_row + kernel_row, self.first_column + kernel_column)
        return self.image[(*position, lanes_at(first, count))]

    def gather(self) -> None:
        """Copy all taps to ``words``; taps in the padding and the words that fill the last vector are 0."""
        tiling, words = self.tiling, self.tiling.group_words
        size = next(size for size in (4, 2, 1) if words % size == 0)
        kind = "serial" if self.layer.taps > 1 else "unroll"
        for word in range(tiling.pixel_words, tiling.steps * tiling.width_words):
            T.buffer_store(self.words, constant(0, WORD), [word])
        rows, columns = self.layer.kernel_shape
        with loop("kernel_row", rows, kind) as kernel_row, loop("kernel_column", columns, kind) as kernel_column:
            first = let("first", (kernel_row * columns + kernel_column) * words)
            inside = self.tap_inside(kernel_row, kernel_column)

            def copy(present: bool) -> None:
                with loop(
                    "word", words // size, "unroll" if words // size <= LARGEST_UNROLLED_COPY else "serial"
                ) as word:
                    value = constant(0, WORD, size)
                    if present:
                        value = self.image_words(kernel_row, kernel_column, word * size, size)
                    T.buffer_store(self.words, value, [lanes_at(first + word * size, size)])

            with when(inside):
                copy(present=True)
            if inside is not True:
                with when(T.Not(inside)):
                    copy(present=False)

    def raw(self, step: Index) -> Expr:
        """Vector ``step`` of the pixel: uint8x16, or uint64 for half a vector."""
        size = self.tiling.width_words
        direct = self.direct
        value = self.image_words(0, 0, step * size, size) if direct else self.words[lanes_at(step * size, size)]
        return T.reinterpret(BYTES if size == VECTOR_WORDS else "uint64", value)

    def running_xors(self) -> list[Expr] | None:
        """The vectors in registers, or None with ``words`` overwritten by them."""
        tiling = self.tiling
        vectors: list[Expr] = []
        first = 0
        for chain in tiling.chains:
            xor: Expr | None = None
            for index in range(chain.length):
                value = self.raw(first + index)
                if index < chain.chained:
                    value = xor = let("xor", value if xor is None else xor ^ value)
                if tiling.resident:
                    wide = value if tiling.width_words == VECTOR_WORDS else T.reinterpret(BYTES, spread(value, 2))
                    vectors.append(let("activations", wide))
                elif index > 0 or self.direct:
                    at = lanes_at((first + index) * VECTOR_WORDS, VECTOR_WORDS)
                    T.buffer_store(self.words, T.reinterpret(f"{WORD}x{VECTOR_WORDS}", value), [at])
            first += chain.length
        return vectors if tiling.resident else None

    def vector(self, step: Index) -> Expr:
        """The activations of one step, uint8x16."""
        if self.vectors is not None:
            return self.vectors[step]
        return T.reinterpret(BYTES, self.words[lanes_at(step * VECTOR_WORDS, VECTOR_WORDS)])
