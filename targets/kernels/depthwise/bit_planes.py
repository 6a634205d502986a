"""Vectors of 32-bit words as bit planes: adding planes without carries, and turning planes into 4-bit codes.

A plane holds one bit of each of 32 fields. Everything here works on all words of a vector at once, so its cost is shared
by hundreds of fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import INTEGER, WORD, Index, constant, lanes_at, let, shuffled

# 32-bit words in the widest vector of any target.
LARGEST_VECTOR = 16
_NIBBLE_BITS = 4
# vpternlog: the truth table of "at least two of three".
_MAJORITY = 0xE8
# Bits of even place, and the two lower bits of each four.
_EVEN_BITS, _EVEN_PAIRS = 0x55555555, 0x33333333


def majority(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
    """The bits that are set in at least two of three."""
    if lanes == LARGEST_VECTOR:
        truth = tirx.const(_MAJORITY, INTEGER)
        return T.call_llvm_pure_intrin(f"{WORD}x{lanes}", "llvm.x86.avx512.pternlog.d.512", a, b, c, truth)
    either = a ^ b
    return (c & either) | (a & ~either)


def counted_planes(bits: Sequence[Expr], lanes: int) -> list[Expr]:
    """The binary digits (lowest first) of how many of ``bits`` are set at each place: carry-save adders, then a ripple."""
    digits, ones = [], list(bits)
    while ones:
        carries = []
        while len(ones) >= 3:
            a, b, c, *rest = ones
            carries.append(let("carry", majority(a, b, c, lanes)))
            ones = [*rest, let("sum", a ^ b ^ c)]
        if len(ones) == 2:
            a, b = ones
            carries.append(let("carry", a & b))
            ones = [let("sum", a ^ b)]
        digits.append(ones[0])
        ones = carries
    return digits


def merged(low: Expr, high: Expr, width: int, lanes: int) -> tuple[Expr, Expr]:
    """Fields of ``2 * width`` bits: the even fields of ``low`` with those of ``high`` above them, and the odd ones."""
    mask = constant({1: _EVEN_BITS, 2: _EVEN_PAIRS}[width], WORD, lanes)
    shift = constant(width, WORD, lanes)
    return (
        let("even", (low & mask) | ((high << shift) & ~mask)),
        let("odd", ((low >> shift) & mask) | (high & ~mask)),
    )


def nibble_codes(planes: Sequence[Expr], lanes: int) -> list[Expr]:
    """Four words of codes from up to four planes: 4-bit code ``k`` of word ``j`` is bit ``4 * k + j`` of every plane."""
    zero = constant(0, WORD, lanes)
    first, second, third, fourth = [*planes, *[zero] * (_NIBBLE_BITS - len(planes))]
    low_even, low_odd = merged(first, second, 1, lanes)
    high_even, high_odd = merged(third, fourth, 1, lanes)
    (code_0, code_2), (code_1, code_3) = merged(low_even, high_even, 2, lanes), merged(low_odd, high_odd, 2, lanes)
    return [code_0, code_1, code_2, code_3]


def code_offset(word: Index, count: int, lanes: int) -> Index:
    """Where ``store_codes`` puts the ``count`` code words of word ``word`` of the vector."""
    if lanes < 4:
        return word * count
    return word % 4 * count // 4 * lanes + word // 4 * 4 + word % (4 // count) * count


def store_codes(buffer: Buffer, codes: Sequence[Expr], lanes: int) -> None:
    """Store 2 or 4 vectors of code words so that those of one word are neighbours, see ``code_offset``."""
    if lanes == 1:
        for index, code in enumerate(codes):
            T.buffer_store(buffer, code, [index])
        return
    if lanes < 4:
        order = [code * lanes + word for word in range(lanes) for code in range(len(codes))]
        T.buffer_store(buffer, shuffled(codes, order), [lanes_at(0, len(codes) * lanes)])
        return

    def unpacked(a: Expr, b: Expr, width: int) -> list[Expr]:
        """``width`` words of ``a`` and of ``b`` in turn, from the lower and the upper halves of every 128 bits.

        That is one instruction each on every target; moving words across 128 bits would take more.
        """
        return [
            let(
                "unpacked",
                shuffled(
                    [a, b],
                    [
                        source * lanes + start + place + offset
                        for start in range(half, lanes, 4)
                        for place in range(0, 2, width)
                        for source in range(2)
                        for offset in range(width)
                    ],
                ),
            )
            for half in (0, 2)
        ]

    vectors = unpacked(codes[0], codes[1], 1)
    if len(codes) == 4:
        others = unpacked(codes[2], codes[3], 1)
        vectors = [vector for pair in zip(vectors, others, strict=True) for vector in unpacked(*pair, 2)]
    for index, vector in enumerate(vectors):
        T.buffer_store(buffer, vector, [lanes_at(index * lanes, lanes)])
