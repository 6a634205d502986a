"""``sign_pack`` and ``ternary_pack``: compare float32 channels and pack one bit each into 32-bit words.

What makes words of comparisons differs by architecture: x86 moves the comparisons of 32 channels into a register in one
instruction; on arm64 each byte contributes its own bit of a byte, and three levels of pairwise sums of 128 bytes leave
the 16 bytes of 128 channels. The ``many`` kernels read X once for several thresholds or biases. A sign that is 0 at its
threshold has three values and two planes, like ``ternary_pack``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.bit_planes import shuffled
from bnn_deploy.targets.kernels.specification import (
    WORD_BITS,
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
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
    vector_type,
    view,
)

# abs(x) <= 0.5 rounds to 0 (half to even), see the operator Ternary.
TERNARY_THRESHOLD = 0.5
# NEON: bytes of a register, and words that three levels of pairwise sums of eight registers fill.
REGISTER_BYTES = 16
REGISTER_WORDS = 4

# First channel and lanes -> one comparison per lane
Compare = Callable[[Index, int], Expr]
# First channel and lanes -> values and what they are compared with
Operands = Callable[[Index, int], tuple[Expr, Expr]]
# Pixel, first word, how many words, and bits of the last one
Place = tuple[Index, Index, int, int]


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


def build_sign_pack(specification: SignPackSpecification, architecture: str) -> PrimFunc:
    """The kernel ``(X, threshold, Y)``: float32 NHWC, float32 ``threshold_shape``, uint32 ``output_shape``."""
    threshold_batch, _, _, threshold_channels = specification.threshold_shape
    with primitive_function(
        X=(specification.input_shape, FLOAT),
        threshold=(specification.threshold_shape, FLOAT),
        Y=(specification.output_shape, WORD),
    ) as (builder, (x, threshold, y)):
        values = pixel_view(x)
        store = sign_store(y, specification.zero, architecture)

        def emit(pixel: Index, word: Index, words: int, bits: int) -> None:
            image = pixel // (specification.height * specification.width) if threshold_batch > 1 else 0

            def operands(channel: Index, lanes: int) -> tuple[Expr, Expr]:
                channels = lanes_at(channel, lanes)
                one = threshold_channels == 1
                bounds = spread(threshold[image, 0, 0, 0], lanes) if one else threshold[image, 0, 0, channels]
                return values[pixel, channels], bounds

            store(operands, (pixel, word, words, bits))

        emit_words(values.shape[0], specification.channels, architecture, emit)
    return finished(builder)


def build_multi_sign_pack(specification: MultiSignPackSpecification, architecture: str) -> PrimFunc:
    """``sign_pack_many_<architecture>``: the kernel ``(X, thresholds, Y0, Y1, …)``.

    X: float32 NHWC; thresholds: float32 (planes, C); each Y: uint32 ``output_shape``.
    """
    planes = specification.planes
    with primitive_function(
        X=(specification.input_shape, FLOAT),
        thresholds=((planes, specification.channels), FLOAT),
        **{f"Y{plane}": (specification.output_shape, WORD) for plane in range(planes)},
    ) as (builder, (x, thresholds, *outputs)):
        values = pixel_view(x)
        stores = [sign_store(output, specification.zero, architecture) for output in outputs]

        def emit(pixel: Index, word: Index, words: int, bits: int) -> None:
            for plane, store in enumerate(stores):

                def operands(channel: Index, lanes: int, plane: int = plane) -> tuple[Expr, Expr]:
                    channels = lanes_at(channel, lanes)
                    return values[pixel, channels], thresholds[plane, channels]

                store(operands, (pixel, word, words, bits))

        emit_words(values.shape[0], specification.channels, architecture, emit)
    return finished(builder)


def build_ternary_pack(specification: TernaryPackSpecification, architecture: str) -> PrimFunc:
    """The kernel ``(X, Y)``: float32 NHWC, uint32 (N, H, 2, W, words): nonzero, positive."""
    with primitive_function(X=(specification.input_shape, FLOAT), Y=(specification.output_shape, WORD)) as (
        builder,
        (x, y),
    ):
        values, result = pixel_view(x), row_view(y)

        def emit(pixel: Index, word: Index, words: int, bits: int) -> None:
            store_ternary(
                result,
                lambda channel, lanes: values[pixel, lanes_at(channel, lanes)],
                (pixel, word, words, bits),
                architecture,
            )

        emit_words(values.shape[0], specification.channels, architecture, emit)
    return finished(builder)


def build_multi_ternary_pack(specification: MultiTernaryPackSpecification, architecture: str) -> PrimFunc:
    """``ternary_pack_many_<architecture>``: the kernel ``(X, biases, Y0, Y1, …)``.

    X: float32 NHWC; biases: float32 (planes, C), added in float32; each Y: uint32 (N, H, 2, W, words).
    """
    planes = specification.planes
    with primitive_function(
        X=(specification.input_shape, FLOAT),
        biases=((planes, specification.channels), FLOAT),
        **{f"Y{plane}": (specification.output_shape, WORD) for plane in range(planes)},
    ) as (builder, (x, biases, *outputs)):
        values, results = pixel_view(x), [row_view(output) for output in outputs]

        def emit(pixel: Index, word: Index, words: int, bits: int) -> None:
            for plane, result in enumerate(results):

                def biased(channel: Index, lanes: int, plane: int = plane) -> Expr:
                    channels = lanes_at(channel, lanes)
                    return let("biased", values[pixel, channels] + biases[plane, channels])

                store_ternary(result, biased, (pixel, word, words, bits), architecture)

        emit_words(values.shape[0], specification.channels, architecture, emit)
    return finished(builder)


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


def sign_store(result: Buffer, zero: int, architecture: str) -> Callable[[Operands, Place], None]:
    """Stores what comparing values with bounds gives at a place; both planes of it where ``zero`` is 0."""
    rows = pixel_view(result) if zero else row_view(result)

    def store(operands: Operands, place: Place) -> None:
        def positive(channel: Index, lanes: int) -> Expr:
            return above(*operands(channel, lanes), zero)

        def negative(channel: Index, lanes: int) -> Expr:
            return below(*operands(channel, lanes))

        if zero == 0:
            store_planes(rows, positive, negative, place, architecture)
            return
        pixel, word, words, bits = place
        T.buffer_store(rows, words_of(positive, word, words, bits, architecture), [pixel, lanes_at(word, words)])

    return store


def store_ternary(result: Buffer, load: Callable[[Index, int], Expr], place: Place, architecture: str) -> None:
    """Store both planes of loaded values that are rounded to -1, 0, +1."""

    def positive(channel: Index, lanes: int) -> Expr:
        return load(channel, lanes) > spread(T.FloatImm(FLOAT, TERNARY_THRESHOLD), lanes)

    def negative(channel: Index, lanes: int) -> Expr:
        return load(channel, lanes) < spread(T.FloatImm(FLOAT, -TERNARY_THRESHOLD), lanes)

    store_planes(result, positive, negative, place, architecture)


def store_planes(result: Buffer, positive: Compare, negative: Compare, place: Place, architecture: str) -> None:
    """Store which values are not 0, and which are positive."""
    pixel, word, words, bits = place
    width = int(result.shape[2])
    upper = let("positive", words_of(positive, word, words, bits, architecture))
    lower = words_of(negative, word, words, bits, architecture)
    for plane, packed in enumerate((upper | lower, upper)):
        T.buffer_store(result, packed, [pixel // width, plane, pixel % width, lanes_at(word, words)])
