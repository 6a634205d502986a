"""``sign_pack`` and ``ternary_pack`` on processors: compare float32 channels and pack one bit each into 32-bit words.

What makes words of comparisons differs by architecture: x86 moves the comparisons of 32 channels into a register in one
instruction; on arm64 each byte contributes its own bit of a byte, and three levels of pairwise sums of 128 bytes leave
the 16 bytes of 128 channels. The ``many`` kernels read X once for several thresholds or biases. A sign that is 0 at its
threshold has three values and two planes, like ``ternary_pack``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    PackSpecification,
    SignPackSpecification,
)
from bnn_deploy.targets.kernels.vector import (
    BYTE,
    FLOAT,
    WORD,
    Index,
    constant,
    finished,
    lanes_at,
    let,
    loop,
    primitive_function,
    shuffled,
    spread,
    vector_type,
    view,
)
from bnn_deploy.targets.kernels.words import WORD_BITS

# abs(x) <= 0.5 rounds to 0 (half to even), see the operator Ternary.
TERNARY_THRESHOLD = 0.5
# NEON: bytes of a register, and words that three levels of pairwise sums of eight registers fill.
REGISTER_BYTES = 16
REGISTER_WORDS = 4

# First channel and lanes -> one float per lane
Load: TypeAlias = Callable[[Index, int], Expr]
# First channel and lanes -> one comparison per lane
Compare: TypeAlias = Callable[[Index, int], Expr]
# Pixel, first word, how many words, and bits of the last one
Place: TypeAlias = tuple[Index, Index, int, int]


def packed_bits(condition: Expr, lanes: int, architecture: str) -> Expr:
    """The uint32 whose bit ``k`` is lane ``k`` of ``condition``."""
    if lanes == 1:
        return T.Select(condition, constant(1, WORD), constant(0, WORD))
    if lanes == WORD_BITS and architecture == "x86_64":
        filled = T.Select(condition, constant(0xFF, BYTE, lanes), constant(0, BYTE, lanes))
        # The name is that of AVX2's instruction; for AVX-512 LLVM turns compare and mask into kunpckwd + kmovd.
        return T.call_llvm_pure_intrin(WORD, "llvm.x86.avx2.pmovmskb", filled)
    own_bit = T.shift_left(constant(1, WORD, lanes), T.ramp(constant(0, WORD), constant(1, WORD), lanes))
    bits = T.Select(condition, own_bit, constant(0, WORD, lanes))
    return T.call_llvm_pure_intrin(WORD, "llvm.vector.reduce.or", bits)


def pairwise_sums(registers: Sequence[Expr]) -> Expr:
    """Three levels of sums of neighbouring bytes: 2, 4 or 8 NEON registers to 4, 8 or 16 bytes (and copies of them)."""
    for _ in range(3):
        pairs = [*registers, *registers][: max(2, len(registers))]
        registers = [
            let("sums", T.call_llvm_pure_intrin(vector_type(BYTE, REGISTER_BYTES), "llvm.aarch64.neon.addp", a, b))
            for a, b in zip(pairs[::2], pairs[1::2], strict=True)
        ]
    return T.reinterpret(vector_type(WORD, REGISTER_WORDS), registers[0])


def packed_words(compare: Compare, channel: Index, words: int, architecture: str) -> Expr:
    """1, 2 or 4 words (uint32 vector) of the channels from ``channel`` on; more than one only on arm64."""
    if architecture != "arm64":
        return packed_bits(compare(channel, WORD_BITS), WORD_BITS, architecture)
    own_bit = constant(1, BYTE, REGISTER_BYTES) << (
        T.ramp(T.uint8(0), T.uint8(1), REGISTER_BYTES) & constant(7, BYTE, REGISTER_BYTES)
    )
    none = constant(0, BYTE, REGISTER_BYTES)
    starts = range(0, words * WORD_BITS, REGISTER_BYTES)
    sums = pairwise_sums(
        [let("own_bits", T.Select(compare(channel + start, REGISTER_BYTES), own_bit, none)) for start in starts]
    )
    return sums if words == REGISTER_WORDS else shuffled([sums], range(words))


def emit_words(pixels: int, channels: int, architecture: str, emit: Callable[[Index, Index, int, int], None]) -> None:
    """Loops over pixels and words: ``emit`` gets the pixel, the first word, how many words, and the bits of the last."""
    with loop("pixel", pixels, "parallel") as pixel:
        whole, first = channels // WORD_BITS, 0
        for words in (REGISTER_WORDS, 2, 1) if architecture == "arm64" else (1,):
            count = (whole - first) // words
            if count > 1:
                with loop("vector", count) as vector:
                    emit(pixel, first + vector * words, words, WORD_BITS)
            elif count:
                emit(pixel, first, words, WORD_BITS)
            first += count * words
        if channels % WORD_BITS:
            emit(pixel, whole, 1, channels % WORD_BITS)


def words_of(compare: Compare, word: Index, words: int, bits: int, architecture: str) -> Expr:
    """Word ``word`` and the following of ``words``; ``bits`` < 32 channels when it is the tail."""
    if bits < WORD_BITS:
        return packed_bits(compare(word * WORD_BITS, bits), bits, architecture)
    return packed_words(compare, word * WORD_BITS, words, architecture)


def kernel(specification: PackSpecification, target: Target) -> Kernel:
    """The kernel of a processor's architecture."""
    name = f"{specification.name}_{target.architecture}"
    return Kernel(name, "pack", specification, partial(build, specification, target.architecture))


def build(specification: PackSpecification, architecture: str) -> PrimFunc:
    """The kernel over ``specification.parameters``."""
    with primitive_function(**specification.parameters) as (builder, (x, *others)):
        values = pixel_view(x)
        operands, outputs = others[: len(specification.operands)], others[len(specification.operands) :]
        results = [row_view(y) if specification.three_valued else pixel_view(y) for y in outputs]

        def emit(pixel: Index, word: Index, words: int, bits: int) -> None:
            for plane, result in enumerate(results):
                found = comparisons(specification, values, operands, pixel, plane)
                store(result, found, (pixel, word, words, bits), architecture)

        emit_words(values.shape[0], specification.channels, architecture, emit)
    return finished(builder)


def comparisons(
    specification: PackSpecification, values: Buffer, operands: Sequence[Buffer], pixel: Index, plane: int
) -> tuple[Compare, ...]:
    """Which channels of a pixel are +1 in an output and, if some can be 0, which are -1."""

    def value(channel: Index, lanes: int) -> Expr:
        return values[pixel, lanes_at(channel, lanes)]

    if isinstance(specification, SignPackSpecification):
        return signs(value, single_threshold(specification, operands[0], pixel), specification.zero)
    if isinstance(specification, MultiSignPackSpecification):
        thresholds = operands[0]
        return signs(value, lambda channel, lanes: thresholds[plane, lanes_at(channel, lanes)], specification.zero)
    if isinstance(specification, MultiTernaryPackSpecification):
        biases = operands[0]
        return roundings(
            lambda channel, lanes: let("biased", value(channel, lanes) + biases[plane, lanes_at(channel, lanes)])
        )
    return roundings(value)


def single_threshold(specification: SignPackSpecification, threshold: Buffer, pixel: Index) -> Load:
    """The threshold of each channel of a pixel."""
    images, _, _, channels = specification.threshold_shape
    image = pixel // (specification.height * specification.width) if images > 1 else 0

    def bounds(channel: Index, lanes: int) -> Expr:
        if channels == 1:
            return spread(threshold[image, 0, 0, 0], lanes)
        return threshold[image, 0, 0, lanes_at(channel, lanes)]

    return bounds


def signs(value: Load, bounds: Load, zero: int) -> tuple[Compare, ...]:
    """Comparisons with thresholds, at which ``zero`` is what a value gives."""

    def positive(channel: Index, lanes: int) -> Expr:
        return above(value(channel, lanes), bounds(channel, lanes), zero)

    def negative(channel: Index, lanes: int) -> Expr:
        return below(value(channel, lanes), bounds(channel, lanes))

    return (positive, negative) if zero == 0 else (positive,)


def roundings(value: Load) -> tuple[Compare, ...]:
    """Comparisons with what is rounded to 0."""

    def positive(channel: Index, lanes: int) -> Expr:
        return value(channel, lanes) > spread(T.FloatImm(FLOAT, TERNARY_THRESHOLD), lanes)

    def negative(channel: Index, lanes: int) -> Expr:
        return value(channel, lanes) < spread(T.FloatImm(FLOAT, -TERNARY_THRESHOLD), lanes)

    return positive, negative


def pixel_view(buffer: Buffer) -> Buffer:
    """NHWC as (pixels, channels)."""
    batch, height, width, channels = (int(size) for size in buffer.shape)
    return view(f"{buffer.name}_pixels", buffer, (batch * height * width, channels))


def row_view(buffer: Buffer) -> Buffer:
    """Words of two planes, (N, H, 2, W, words), as (rows, 2, W, words)."""
    batch, height, *row = (int(size) for size in buffer.shape)
    return view(f"{buffer.name}_rows", buffer, (batch * height, *row))


def above(values: Expr, bounds: Expr, zero: int) -> Expr:
    """Whether a value is +1; equality gives ``zero``, NaN gives -1."""
    return values >= bounds if zero == 1 else values > bounds


def below(values: Expr, bounds: Expr) -> Expr:
    """Whether a value is -1 where equality gives 0."""
    return values < bounds


def store(result: Buffer, found: tuple[Compare, ...], place: Place, architecture: str) -> None:
    """Store what ``comparisons`` gives at a place: one plane or both."""
    if len(found) == 2:
        store_planes(result, *found, place, architecture)
        return
    pixel, word, words, bits = place
    T.buffer_store(result, words_of(found[0], word, words, bits, architecture), [pixel, lanes_at(word, words)])


def store_planes(result: Buffer, positive: Compare, negative: Compare, place: Place, architecture: str) -> None:
    """Store which values are not 0, and which are positive."""
    pixel, word, words, bits = place
    width = int(result.shape[2])
    upper = let("positive", words_of(positive, word, words, bits, architecture))
    lower = words_of(negative, word, words, bits, architecture)
    for plane, packed in enumerate((upper | lower, upper)):
        T.buffer_store(result, packed, [pixel // width, plane, pixel % width, lanes_at(word, words)])
