"""From 4-bit codes in words to one float32 per lane: a table of 16 numbers looked up in the fewest instructions.

How differs by the width of the vectors, which tells the instruction set: 16 lanes are AVX-512 (``vpermps`` looks up 16
numbers), 8 lanes are AVX2 (its ``vpermps`` looks up 8), 4 lanes are NEON (``tbl`` looks up bytes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

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
    shuffled,
    spread,
    vector_type,
)

CODE_BITS = 4
CODE_COUNT = 1 << CODE_BITS
# Indices of AVX2's vpermps.
_SHORT_TABLE = 8
# Bytes in a NEON register.
_REGISTER_BYTES = 16

# (code buffer, offset of a word's codes) -> the word's numbers, one vector at a time
Decode: TypeAlias = Callable[[Buffer, Index], Iterator[Expr]]


@dataclass(frozen=True)
class CodeTable:
    """What the codes of one kind mean.

    Attributes:
        bits: how many bits of a code matter.
        first_bit: the lowest of them.
        values: float32 vector of 16 numbers by code.
    """

    bits: int
    first_bit: int
    values: Expr


@dataclass(frozen=True)
class LinearTable(CodeTable):
    """Codes that mean ``start + step * code``."""

    start: Expr
    step: float


def constant_table(values: Sequence[float]) -> Expr:
    """16 numbers as a vector."""
    return shuffled([T.FloatImm(FLOAT, float(value)) for value in values], range(CODE_COUNT))


def linear_table(bits: int, start: Expr, step: float) -> LinearTable:
    """The table of ``start + step * code`` for codes of ``bits`` bits."""
    codes = T.Cast(vector_type(FLOAT, CODE_COUNT), T.ramp(T.int32(0), T.int32(1), CODE_COUNT))
    values = fused_multiply_add(codes, constant(step, FLOAT, CODE_COUNT), spread(start, CODE_COUNT), CODE_COUNT)
    return LinearTable(bits, 0, values, start, step)


class WordDecoder:
    """Decodes the codes of one word of X: ``32 / group channels`` of them in ``code_words`` words at ``offset``."""

    def __init__(self, lanes: int, code_words: int) -> None:
        self.lanes, self.code_words = lanes, code_words
        self.blocks = code_words * 32 // CODE_BITS // lanes

    def prepared(self, table: CodeTable) -> Decode:
        """Compute once what does not depend on the word; the result gives a word's numbers, ``lanes`` at a time."""
        if self.lanes == 4:
            return self._neon(table)
        if self.lanes == _SHORT_TABLE and table.bits == CODE_BITS and isinstance(table, LinearTable):
            return self._arithmetic(table)
        return self._permutation(table)

    def _shifted(self, buffer: Buffer, offset: Index, block: int, first_bit: int) -> Expr:
        """Every lane's code at the bottom of its lane, other codes above it."""
        lanes, words = self.lanes, self.code_words
        own = shuffled([buffer[lanes_at(offset, lanes)]], [lane % words for lane in range(lanes)])
        place = T.ramp(T.uint32(block * lanes), T.uint32(1), lanes) // constant(words, WORD, lanes)
        shifts = place * constant(CODE_BITS, WORD, lanes) + constant(first_bit, WORD, lanes)
        return own >> shifts

    def _permutation(self, table: CodeTable) -> Decode:
        lanes = self.lanes
        intrinsic = {16: "llvm.x86.avx512.permvar.sf.512", 8: "llvm.x86.avx2.permps"}[lanes]
        # The permutation ignores bits above its index, so that only the bits below the wanted ones must go.
        short = lanes == _SHORT_TABLE
        first_bit = table.first_bit if short else 0
        values = table.values
        if short:
            values = shuffled([values], [(index << first_bit) % CODE_COUNT for index in range(_SHORT_TABLE)])
        values = let("table", values)

        def decode(buffer: Buffer, offset: Index) -> Iterator[Expr]:
            for block in range(self.blocks):
                codes = T.reinterpret(f"{INTEGER}x{lanes}", self._shifted(buffer, offset, block, first_bit))
                yield T.call_llvm_pure_intrin(f"{FLOAT}x{lanes}", intrinsic, values, codes)

        return decode

    def _arithmetic(self, table: LinearTable) -> Decode:
        lanes = self.lanes
        start = let("start", spread(table.start, lanes))

        def decode(buffer: Buffer, offset: Index) -> Iterator[Expr]:
            for block in range(self.blocks):
                codes = self._shifted(buffer, offset, block, 0) & constant(CODE_COUNT - 1, WORD, lanes)
                number = cast(T.reinterpret(f"{INTEGER}x{lanes}", codes), FLOAT, lanes)
                yield fused_multiply_add(number, constant(table.step, FLOAT, lanes), start, lanes)

        return decode

    def _neon(self, table: CodeTable) -> Decode:
        """The numbers are small and whole: only the two upper bytes of their float32 are not 0."""
        numbers = T.reinterpret(vector_type(BYTE, 4 * CODE_COUNT), table.values)
        upper = let("upper_bytes", shuffled([numbers], range(3, 4 * CODE_COUNT, 4)))
        lower = let("lower_bytes", shuffled([numbers], range(2, 4 * CODE_COUNT, 4)))

        def looked_up(*operands: Expr) -> Expr:
            name = f"llvm.aarch64.neon.tbl{len(operands) - 1}"
            return T.call_llvm_pure_intrin(vector_type(BYTE, _REGISTER_BYTES), name, *operands)

        def decode(buffer: Buffer, offset: Index) -> Iterator[Expr]:
            registers = []
            for codes in self._code_bytes(buffer, offset):
                registers.append((let("lower", looked_up(lower, codes)), let("upper", looked_up(upper, codes))))
            for block in range(self.blocks):
                # Lane j takes byte 4 * j + first of both; a byte index out of range gives 0.
                first = block // len(registers)
                start = 0xFFFF + (first << 16) + ((_REGISTER_BYTES + first) << 24)
                places = T.reinterpret(
                    vector_type(BYTE, _REGISTER_BYTES), T.ramp(T.uint32(start), T.uint32(0x04040000), 4)
                )
                yield T.reinterpret(f"{FLOAT}x4", looked_up(*registers[block % len(registers)], places))

        return decode

    def _code_bytes(self, buffer: Buffer, offset: Index) -> list[Expr]:
        """Registers with one code per byte. Byte ``4 * j + b`` of register ``r`` (of R) is output ``4 * (R * b + r) + j``."""
        if self.code_words == 4:
            codes = let("codes", T.reinterpret("uint8x16", buffer[lanes_at(offset, 4)]))
            low, high = codes & constant(0x0F, BYTE, 16), codes >> constant(CODE_BITS, BYTE, 16)
            return [let("low", low), let("high", high)]
        own = shuffled([buffer[lanes_at(offset, 4)]], [0, 1, 0, 1])
        shifts = T.ramp(T.uint32(0), T.uint32(1), 4) // constant(2, WORD, 4) * constant(CODE_BITS, WORD, 4)
        return [let("codes", T.reinterpret("uint8x16", (own >> shifts) & constant(0x0F0F0F0F, WORD, 4)))]
