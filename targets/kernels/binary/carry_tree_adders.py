"""Carry-save trees: words of K become bits of a number in every lane, and few of them are counted.

The lanes of a vector are output channels. Let ``v[k] = x[k] ^ w[k]`` be the differing bits of word ``k``. A full adder
makes of three vectors of one weight a sum of that weight and a carry of twice the weight (Harley and Seal), so that of
eight words one vector of weight 8 is left to be counted, and one vector of each smaller weight stays in a register.

The first level takes two words at once. With ``x01 = x[2j] ^ x[2j+1]``, which all output channels share, and ``w01``,
which is packed, the new sum is ``s ^ x01 ^ w01``, and the carry is a function of the old sum, the new one and
``v[2j]``: three instructions for two words, not four, where a processor computes any function of three bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import INTEGER, WORD, let, popcount_bytes, spread, vector_type

# Truth tables of vpternlog: bit 4 a + 2 b + c is the result for the bits a, b, c.
PARITY, MAJORITY, FIRST_IF_UNEQUAL_ELSE_THIRD = 0x96, 0xE8, 0xB2


def pair_words(words: np.ndarray) -> np.ndarray:
    """uint32 (…, K): every second word xor the word before it; the last of an odd number stays as it is."""
    result: np.ndarray = words.copy()
    last = words.shape[-1] // 2 * 2
    result[..., 1:last:2] ^= words[..., 0:last:2]
    return result


def paired(words: Expr, count: int) -> Expr:
    """``count`` neighbouring words (an even number) as ``pair_words`` makes them."""
    pairs = T.reinterpret(vector_type("uint64", count // 2), words)
    return T.reinterpret(vector_type(WORD, count), pairs ^ (pairs << spread(T.uint64(32), count // 2)))


@dataclass(frozen=True)
class Adders:
    """Additions of bits in every position of a vector.

    Attributes:
        lanes: 32-bit lanes of the vector.
        lookup: whether the processor has vpternlog.
    """

    lanes: int
    lookup: bool

    def table(self, table: int, a: Expr, b: Expr, c: Expr) -> Expr:
        """Any function of three bits: one vpternlog."""
        element = vector_type(INTEGER, self.lanes)
        bits = [T.reinterpret(element, value) for value in (a, b, c)]
        name = f"llvm.x86.avx512.pternlog.d.{32 * self.lanes}"
        result = T.call_llvm_pure_intrin(element, name, *bits, T.int32(table))
        return T.reinterpret(vector_type(WORD, self.lanes), result)

    def add(self, a: Expr, b: Expr, c: Expr) -> tuple[Expr, Expr]:
        """Sum and carry of three vectors."""
        if self.lookup:
            return let("total", self.table(PARITY, a, b, c)), let("carry", self.table(MAJORITY, a, b, c))
        odd = let("odd", a ^ b)
        return let("total", odd ^ c), let("carry", a ^ (odd & (a ^ c)))

    def add_pair(
        self, total: Expr | None, activations: tuple[Expr, Expr], weights: tuple[Expr, Expr]
    ) -> tuple[Expr, Expr]:
        """Sum and carry of ``total``, if any, and the differing bits of two words, which are paired."""
        differing = let("differing", activations[0] ^ weights[0])
        if total is None:
            following = let("total", activations[1] ^ weights[1])
            return following, let("carry", differing & ~following)
        if self.lookup:
            following = let("total", self.table(PARITY, total, activations[1], weights[1]))
            return following, let("carry", self.table(FIRST_IF_UNEQUAL_ELSE_THIRD, total, following, differing))
        odd = let("odd", activations[1] ^ weights[1])
        return let("total", total ^ odd), let("carry", differing ^ (odd & (differing ^ total)))


class WaitingBits:
    """The vectors of one pixel and one vector of output channels that are not counted yet, by the weight of their bits.

    Attributes:
        levels: vectors of weight ``2 ** level``; of the top level any number waits, of others less than three.
    """

    def __init__(self, adders: Adders, top: int) -> None:
        self.adders = adders
        self.levels: list[list[Expr]] = [[] for _ in range(top + 1)]

    def push(self, level: int, vector: Expr) -> None:
        """Add a vector of weight ``2 ** level``."""
        waiting = self.levels[level]
        waiting.append(vector)
        if len(waiting) == 3 and level < len(self.levels) - 1:
            total, carry = self.adders.add(*waiting)
            waiting[:] = [total]
            self.push(level + 1, carry)

    def push_pair(self, activations: tuple[Expr, Expr], weights: tuple[Expr, Expr]) -> None:
        """Add the differing bits of two words, which are paired; at most one vector of weight 1 may wait."""
        (total,) = self.levels[0] or (None,)
        total, carry = self.adders.add_pair(total, activations, weights)
        self.levels[0] = [total]
        self.push(1, carry)

    def count(self) -> Expr:
        """The bits of every byte by their weights, uint8; those of 31 words fit."""
        count: Expr | None = None
        for waiting in reversed(self.levels):
            if count is not None:
                count = let("count", count + count)
            for vector in waiting:
                bits = popcount_bytes(vector, self.adders.lanes)
                count = let("count", bits if count is None else count + bits)
        return count
