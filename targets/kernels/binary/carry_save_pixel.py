"""The activations of one output pixel as the carry-save convolution reads them: all taps' words, as running xors."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.carry_save_tiling import VECTOR_WORDS, CarrySaveTiling
from bnn_deploy.targets.kernels.binary.gathered_pixel import GatheredPixel
from bnn_deploy.targets.kernels.vector import BYTE, WORD, Index, constant, lanes_at, let, registers, spread

BYTES = f"{BYTE}x16"


class PixelWords(GatheredPixel[CarrySaveTiling]):
    """Emits what one output pixel needs before its blocks of channels: the running xors and the valid products."""

    def __init__(
        self, tiling: CarrySaveTiling, image: Buffer, n: Index, row: Index, column: Index, group: Index
    ) -> None:
        super().__init__(tiling, image, n, row, column, group)
        self.direct = self.layer.taps == 1 and not tiling.padded and tiling.pixel_words % tiling.width_words == 0
        if not (self.direct and tiling.resident):
            self.words = registers("words", WORD, tiling.steps * tiling.width_words)
        if not self.direct:
            for word in range(tiling.pixel_words, tiling.steps * tiling.width_words):
                T.buffer_store(self.words, constant(0, WORD), [word])
            self.gather(self.words, VECTOR_WORDS)
        self.vectors = self.running_xors()

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
