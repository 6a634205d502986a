"""The popcounts of a block of eight output channels for a tile of pixels, by carry-save chains and pairwise sums."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.carry_save_chain import Chain
from bnn_deploy.targets.kernels.binary.carry_save_pixel import BYTES, PixelWords
from bnn_deploy.targets.kernels.binary.carry_save_tiling import BLOCK_OUTPUTS, VECTOR_WORDS, CarrySaveTiling
from bnn_deploy.targets.kernels.vector import (
    BYTE,
    Index,
    constant,
    lanes_at,
    let,
    loop,
    registers,
    spread,
    when,
)
from bnn_deploy.targets.kernels.words import WORD_BITS

SHORT = "int16"
SHORTS = f"{SHORT}x8"


def add_pairs(low: Expr, high: Expr) -> Expr:
    """Sums of neighbouring elements: of ``low`` in the lower half, of ``high`` in the upper half."""
    return T.call_llvm_pure_intrin(str(low.ty.dtype), "llvm.aarch64.neon.addp", low, high)


def widen_pairs(values: Expr, signed: bool) -> Expr:
    """Sums of neighbouring bytes as int16x8."""
    return T.call_llvm_pure_intrin(SHORTS, f"llvm.aarch64.neon.{'s' if signed else 'u'}addlp", values)


def bit_select(mask: Expr, chosen: Expr, other: Expr) -> Expr:
    """``chosen`` where a bit of ``mask`` is set, otherwise ``other``: one ``bsl``.

    Written with vector-predicated operations, all of whose lanes are active. LLVM makes plain ones of them only after
    its optimiser, which would turn ``~(x ^ w)`` into ``~x ^ w`` and no longer see the select.
    """

    def operation(name: str, a: Expr, b: Expr) -> Expr:
        return T.call_llvm_pure_intrin(BYTES, f"llvm.vp.{name}", a, b, spread(T.bool(True), 16), T.uint32(16))

    inverted = operation("xor", mask, constant(0xFF, BYTE, 16))
    return operation("or", operation("and", mask, chosen), operation("and", inverted, other))


def keep_order(value: Expr) -> None:
    """No instruction, but one that LLVM's scheduler moves no load across.

    It would otherwise load the weights of the whole block first, and spill them.
    """
    T.evaluate(T.call_llvm_intrin("void", "llvm.fake.use", value))


@dataclass
class Counts:
    """Byte sums of some columns.

    Attributes:
        carries: popcounts of the even adders' inverted carries less those of the odd ones' carries; of a single
            adder's carry; None without adders, or once merged.
        rest: popcounts of the last sum and of the vector counted by itself, the second less the first if the last sum
            is inverted; or the merged number.
    """

    carries: Expr | None
    rest: Expr


def chain_counts(chain: Chain, activations: list[Expr], weights: list[Expr]) -> Counts:
    """The counts of one column for one pixel."""
    total = let("total", activations[0] ^ weights[0])
    carries: Expr | None = None
    for adder in range(1, chain.adders + 1):
        toggle = let("toggle", activations[2 * adder - 1] ^ weights[2 * adder - 1])
        following = let("total", activations[2 * adder] ^ weights[2 * adder])
        count = T.popcount(bit_select(toggle, following, total))
        if carries is None:
            carries = count
        elif adder == 2:
            carries = count - carries
        else:
            carries = carries - count if adder % 2 else carries + count
        carries, total = let("carries", carries), following
    rest = T.popcount(total)
    if chain.has_rest:
        last = T.popcount(activations[-1] ^ weights[-1])
        rest = rest - last if chain.adders % 2 else rest + last
    return Counts(carries, let("rest", rest))


def merge(chain: Chain, counts: Counts) -> Counts:
    """Carries and rest as one number: the differing bits but for a constant, or minus them for odd adders."""
    if counts.carries is None:
        return counts
    # A factor that LLVM does not recognise: it would turn one multiply-add into a shift or a negation and an addition.
    half = 1 if chain.adders > 1 and chain.adders % 2 else -1
    factor = add_pairs(constant(half & 0xFF, BYTE, 16), constant(half & 0xFF, BYTE, 16))
    return Counts(None, let("merged", counts.rest + counts.carries * factor))


class BlockCounter:
    """Emits the dot products of one block of channels with every pixel of a tile."""

    def __init__(self, tiling: CarrySaveTiling, weights: Buffer, block: Index, pixels: list[PixelWords]) -> None:
        self.tiling, self.weights, self.block, self.pixels = tiling, weights, block, pixels

    def half_dot_products(self) -> list[Expr]:
        """Per pixel, half the dot products rounded down, int16x8."""
        chains = self.tiling.chains
        bits = WORD_BITS * self.tiling.width_words
        surplus = sum(chain.surplus(bits) for chain in chains)
        halves = [self.base(pixel, surplus) for pixel in self.pixels]
        looped, first = self.tiling.looped_chains, 0
        if looped:
            sums = self.loop_sums(chains[0], looped)
            halves = [signed_sum(chains[0], half, part) for half, part in zip(halves, sums, strict=True)]
            first = looped * chains[0].length
        for chain in chains[looped:]:
            parts = self.chain_sums(chain, first)
            halves = [signed_sum(chain, half, part) for half, part in zip(halves, parts, strict=True)]
            first += chain.length
        return [let("half", half) for half in halves]

    def loop_sums(self, chain: Chain, count: int) -> list[Expr]:
        """Per pixel, the sums of ``count`` equal chains."""
        lanes = [lanes_at(BLOCK_OUTPUTS * p, BLOCK_OUTPUTS) for p in range(len(self.pixels))]
        sums = registers("sums", SHORT, BLOCK_OUTPUTS * len(self.pixels))
        for at in lanes:
            T.buffer_store(sums, constant(0, SHORT, BLOCK_OUTPUTS), [at])
        with loop("chain", count) as index:
            for at, part in zip(lanes, self.chain_sums(chain, index * chain.length), strict=True):
                T.buffer_store(sums, sums[at] + part, [at])
        return [sums[at] for at in lanes]

    def base(self, pixel: PixelWords, surplus: int) -> Expr:
        """What the counts are taken from: half the valid products, and what the counts have too much."""
        valid = spread(T.Cast(SHORT, pixel.valid // 2 - surplus), BLOCK_OUTPUTS)
        if not self.tiling.padded:
            return valid
        base, everything = registers("base", SHORT, BLOCK_OUTPUTS), lanes_at(0, BLOCK_OUTPUTS)
        T.buffer_store(base, valid, [everything])
        rows, columns = self.tiling.specification.kernel_shape
        first = self.tiling.weights_shape[1] - self.tiling.tap_words
        with (
            when(pixel.taps < rows * columns),
            loop("kernel_row", rows) as kernel_row,
            loop("kernel_column", columns) as kernel_column,
            when(T.Not(pixel.tap_inside(kernel_row, kernel_column))),
        ):
            tap = kernel_row * columns + kernel_column
            counts = self.weights[self.block, lanes_at(first + tap * VECTOR_WORDS, VECTOR_WORDS)]
            T.buffer_store(base, base[everything] + T.reinterpret(SHORTS, counts), [everything])
        return base[everything]

    def chain_sums(self, chain: Chain, first: Index) -> list[Expr]:
        """Per pixel, the sums of one chain, int16x8; ``first`` is its first step."""
        columns, words = self.tiling.columns_of_block, VECTOR_WORDS
        activations = [[pixel.vector(first + step) for step in range(chain.length)] for pixel in self.pixels]
        trees = [PairTree(chain, self.tiling) for _ in self.pixels]
        for column in range(columns):
            start = first * columns + column * chain.length
            weights = [
                let("weight", T.reinterpret(BYTES, self.weights[self.block, lanes_at((start + step) * words, words)]))
                for step in range(chain.length)
            ]
            for p, tree in enumerate(trees):
                tree.push(chain_counts(chain, activations[p], weights))
        return [tree.total() for tree in trees]


def signed_sum(chain: Chain, half: Expr, part: Expr) -> Expr:
    """``half`` less the differing bits of which ``part`` is the count, which has the other sign for odd adders."""
    return half + part if chain.adders % 2 else half - part


class PairTree:
    """Adds the counts of a block's columns pairwise, as soon as two of a kind are there."""

    def __init__(self, chain: Chain, tiling: CarrySaveTiling) -> None:
        self.chain = chain
        self.keep_order = tiling.style.keep_order
        self.column_bytes = 4 * tiling.width_words
        # Two bytes per channel, if they hold the sums of a chain; otherwise four.
        bits = WORD_BITS * tiling.width_words // 2
        largest = 128 if chain.adders % 2 else 127 if chain.adders else 255
        self.bytes_left = 2 if (chain.length - chain.adders) * bits <= largest else 4
        self.merge_level = 0 if tiling.width_words == 2 else 1
        self.sums: list[tuple[int, Counts]] = []

    def push(self, counts: Counts) -> None:
        """Add the counts of the next column."""
        level = 0
        if self.merge_level == 0:
            counts = merge(self.chain, counts)
        while self.sums and self.sums[-1][0] == level and self.column_bytes >> level > self.bytes_left:
            _, low = self.sums.pop()
            carries = None
            if low.carries is not None:
                carries = let("carries", add_pairs(low.carries, counts.carries))
            counts = Counts(carries, let("rest", add_pairs(low.rest, counts.rest)))
            level += 1
            if level == self.merge_level:
                counts = merge(self.chain, counts)
        self.sums.append((level, counts))
        if self.keep_order:
            keep_order(counts.rest)

    def total(self) -> Expr:
        """The sums of the eight channels, int16x8."""
        wide = [widen_pairs(counts.rest, signed=self.chain.adders > 0) for _, counts in self.sums]
        return let("sums", wide[0] if len(wide) == 1 else add_pairs(*wide))
