"""The dot products of a block of output channels with a tile of pixels, by carry-save trees."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.carry_save_block import keep_order
from bnn_deploy.targets.kernels.binary.carry_tree_adders import Adders, WaitingBits, paired
from bnn_deploy.targets.kernels.binary.carry_tree_tiling import CarryTreeTiling
from bnn_deploy.targets.kernels.binary.gathered_pixel import GatheredPixel
from bnn_deploy.targets.kernels.vector import (
    BYTE,
    INTEGER,
    WORD,
    Index,
    cast,
    constant,
    lanes_at,
    let,
    loop,
    popcount_bytes,
    registers,
    spread,
    when,
)

# Words of X in one register while they are copied.
COPIED_WORDS = 16
# By bits of a vector: LLVM's names of vpmaddubsw and vpmaddwd.
SUMS_OF_NEIGHBOURS = {
    256: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    512: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
}


class PairedPixel(GatheredPixel[CarryTreeTiling]):
    """Emits the words of one output pixel, paired."""

    def __init__(
        self, tiling: CarryTreeTiling, image: Buffer, n: Index, row: Index, column: Index, group: Index
    ) -> None:
        super().__init__(tiling, image, n, row, column, group)
        self.words = registers("words", WORD, tiling.pixel_words)
        pairs_within_taps = tiling.group_words % 2 == 0
        self.gather(self.words, COPIED_WORDS, paired if pairs_within_taps else None)
        if not pairs_within_taps and tiling.pixel_words > 1:
            with loop("pair", tiling.pixel_words // 2) as pair:
                at = 2 * pair + 1
                T.buffer_store(self.words, self.words[at] ^ self.words[at - 1], [at])


def minus_twice_sum(counts: Expr, weight: int, lanes: int) -> Expr:
    """``-2 * weight`` times the sum of the four bytes in each lane of ``counts`` (uint8), int32."""
    bytes_to_shorts, shorts_to_integers = SUMS_OF_NEIGHBOURS[32 * lanes]
    factors = constant(weight, BYTE, 4 * lanes)
    shorts = T.call_llvm_pure_intrin(f"int16x{2 * lanes}", bytes_to_shorts, counts, factors)
    return T.call_llvm_pure_intrin(f"int32x{lanes}", shorts_to_integers, shorts, constant(-2, "int16", 2 * lanes))


class TreeBlock:
    """Emits the dot products of one block of channels with every pixel of a tile."""

    def __init__(self, tiling: CarryTreeTiling, weights: Buffer, block: Index, pixels: list[PairedPixel]) -> None:
        self.tiling, self.weights, self.block, self.pixels = tiling, weights, block, pixels
        self.lanes, self.vectors = tiling.tile.lanes, tiling.tile.vectors
        self.adders = Adders(self.lanes, tiling.style.lookup)
        self.cells = [(p, v) for p in range(len(pixels)) for v in range(self.vectors)]

    def at(self, cell: int, size: int) -> Expr:
        """Index of the register of a cell in a buffer of ``size`` elements each."""
        return lanes_at(cell * size, size)

    def dot_products(self) -> list[list[Expr]]:
        """Per pixel and vector of output channels, int32."""
        tiling, lanes = self.tiling, self.lanes
        cells = [WaitingBits(self.adders, tiling.levels) for _ in self.cells]
        first, counters = 0, None
        if tiling.looped_groups:
            counters = self.add_groups(cells)
            first = tiling.looped_groups * tiling.style.words
        self.add_words(cells, first, tiling.pixel_words - first)
        padding = self.in_padding() if tiling.padded else None
        dots: list[list[Expr]] = [[] for _ in self.pixels]
        for cell, (p, _) in enumerate(self.cells):
            dot = spread(self.pixels[p].valid, lanes) + minus_twice_sum(cells[cell].count(), 1, lanes)
            if counters is not None:
                dot = dot + minus_twice_sum(counters[self.at(cell, 4 * lanes)], tiling.style.words, lanes)
            if padding is not None:
                dot = dot + padding[self.at(cell, lanes)]
            dots[p].append(let("dot", dot))
        return dots

    def add_groups(self, cells: list[WaitingBits]) -> Buffer:
        """Add all groups of words to ``cells`` but for the bits that weigh as much as a group: their counts, uint8."""
        lanes, words = self.lanes, self.tiling.style.words
        planes = [registers("plane", WORD, lanes * len(cells)) for _ in range(self.tiling.levels)]
        counters = registers("counters", BYTE, 4 * lanes * len(cells))
        for cell in range(len(cells)):
            for plane in planes:
                T.buffer_store(plane, constant(0, WORD, lanes), [self.at(cell, lanes)])
            T.buffer_store(counters, constant(0, BYTE, 4 * lanes), [self.at(cell, 4 * lanes)])

        def take(targets: list[WaitingBits]) -> None:
            for cell, target in enumerate(targets):
                for level, plane in enumerate(planes):
                    target.levels[level] = [let("plane", plane[self.at(cell, lanes)])]

        with loop("group", self.tiling.looped_groups) as group:
            added = [WaitingBits(self.adders, self.tiling.levels) for _ in cells]
            take(added)
            self.add_words(added, group * words, words)
            for cell, bits in enumerate(added):
                *lower, (top,) = bits.levels
                for plane, (vector,) in zip(planes, lower, strict=True):
                    T.buffer_store(plane, vector, [self.at(cell, lanes)])
                at = self.at(cell, 4 * lanes)
                T.buffer_store(counters, counters[at] + popcount_bytes(top, lanes), [at])
        take(cells)
        return counters

    def add_words(self, cells: list[WaitingBits], first: Index, count: int) -> None:
        """Add neighbouring words to all cells: pairs, and the last one of an odd number."""
        for step in range(0, count, 2):
            words = range(step, min(step + 2, count))
            weights = [tuple(self.weight(first + word, v) for word in words) for v in range(self.vectors)]
            for p in range(len(self.pixels)):
                activations = tuple(self.activation(p, first + word) for word in words)
                for v in range(self.vectors):
                    bits = cells[p * self.vectors + v]
                    if len(words) == 2:
                        bits.push_pair(activations, weights[v])
                    else:
                        bits.push(0, let("differing", activations[0] ^ weights[v][0]))
            keep_order(cells[-1].levels[0][0])

    def weight(self, row: Index, v: int) -> Expr:
        """A row of the packed weights."""
        return let("weight", self.weights[self.block, row, v, lanes_at(0, self.lanes)])

    def activation(self, p: int, word: Index) -> Expr:
        """A word of a pixel in every lane."""
        return let("activation", spread(self.pixels[p].words[word], self.lanes))

    def in_padding(self) -> Buffer:
        """Twice what was counted of taps in the padding, int32; their activations were gathered as 0."""
        layer, lanes = self.tiling.specification, self.lanes
        rows, columns = layer.kernel_shape
        padding = registers("padding", INTEGER, lanes * len(self.cells))
        for cell in range(len(self.cells)):
            T.buffer_store(padding, constant(0, INTEGER, lanes), [self.at(cell, lanes)])
        for p, pixel in enumerate(self.pixels):
            with (
                when(pixel.taps < layer.taps),
                loop("kernel_row", rows) as kernel_row,
                loop("kernel_column", columns) as kernel_column,
                when(T.Not(pixel.tap_inside(kernel_row, kernel_column))),
            ):
                tap = kernel_row * columns + kernel_column
                for v in range(self.vectors):
                    at = self.at(p * self.vectors + v, lanes)
                    counts = cast(self.weight(self.tiling.pixel_words + tap, v), INTEGER, lanes)
                    T.buffer_store(padding, padding[at] + counts + counts, [at])
        return padding
