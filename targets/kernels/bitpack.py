"""``sign_pack`` and ``ternary_pack``: compare float32 channels and pack one bit each into 32-bit words.

One task per pixel; 32 channels are compared at once and become one word. What makes a word of 32 comparisons differs
by architecture: x86 collects the top bits of 32 bytes in one instruction, elsewhere each lane contributes its own bit
and the lanes are or-ed together.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.specification import (
    WORD_BITS,
    SignPackSpecification,
    TernaryPackSpecification,
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
    spread,
)

# abs(x) <= 0.5 rounds to 0 (half to even), see the operator Ternary.
TERNARY_THRESHOLD = 0.5


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


def emit_words(
    specification: SignPackSpecification | TernaryPackSpecification,
    emit_word: Callable[[tuple[Index, Index, Index], Index, int], None],
) -> None:
    """Loops over pixels and words; ``emit_word`` gets the pixel (n, row, column), the word and its channels."""
    batch, height, width, channels = specification.input_shape
    with loop("task", batch * height * width, "parallel") as task:
        position = (
            let("n", task // (height * width)),
            let("row", task // width % height),
            let("column", task % width),
        )
        if channels >= WORD_BITS:
            with loop("word", channels // WORD_BITS) as word:
                emit_word(position, word, WORD_BITS)
        if channels % WORD_BITS:
            emit_word(position, channels // WORD_BITS, channels % WORD_BITS)


def build_sign_pack(specification: SignPackSpecification, architecture: str) -> PrimFunc:
    """The kernel ``(X, threshold, Y)``: float32 NHWC, float32 ``threshold_shape``, uint32 (N, H, W, words)."""
    threshold_batch, _, _, threshold_channels = specification.threshold_shape
    with primitive_function(
        X=(specification.input_shape, FLOAT),
        threshold=(specification.threshold_shape, FLOAT),
        Y=(specification.output_shape, WORD),
    ) as (builder, (x, threshold, y)):

        def emit_word(position: tuple[Index, Index, Index], word: Index, lanes: int) -> None:
            values = x[(*position, lanes_at(word * WORD_BITS, lanes))]
            image = position[0] if threshold_batch > 1 else 0
            if threshold_channels > 1:
                bounds = threshold[image, 0, 0, lanes_at(word * WORD_BITS, lanes)]
            else:
                bounds = spread(threshold[image, 0, 0, 0], lanes)
            condition = values > bounds if specification.zero == -1 else values >= bounds
            T.buffer_store(y, packed_bits(condition, lanes, architecture), [*position, word])

        emit_words(specification, emit_word)
    return finished(builder)


def build_ternary_pack(specification: TernaryPackSpecification, architecture: str) -> PrimFunc:
    """The kernel ``(X, Y)``: float32 NHWC, uint32 (2, N, H, W, words): nonzero, positive."""
    with primitive_function(X=(specification.input_shape, FLOAT), Y=(specification.output_shape, WORD)) as (
        builder,
        (x, y),
    ):

        def emit_word(position: tuple[Index, Index, Index], word: Index, lanes: int) -> None:
            values = x[(*position, lanes_at(word * WORD_BITS, lanes))]
            bound = spread(T.FloatImm(FLOAT, TERNARY_THRESHOLD), lanes)
            negative_bound = spread(T.FloatImm(FLOAT, -TERNARY_THRESHOLD), lanes)
            positive = let("positive", packed_bits(values > bound, lanes, architecture))
            negative = packed_bits(values < negative_bound, lanes, architecture)
            T.buffer_store(y, positive | negative, [0, *position, word])
            T.buffer_store(y, positive, [1, *position, word])

        emit_words(specification, emit_word)
    return finished(builder)
