"""``sign_pack`` and ``ternary_pack`` on a GPU: 32 lanes compare 32 neighbouring channels, and one ballot makes the word.

A warp makes several words, whose values it reads before it compares any of them, so that the reads wait for memory together;
each read of a warp is 128 neighbouring bytes where a word is full. The ``many`` kernels read X once for several thresholds
or biases. A lane without a channel holds NaN, which is bit 0 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.device_functions import WARP, ballot
from bnn_deploy.targets.cuda.kernels.index_range import require_int32_indices
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    PackSpecification,
    SignPackSpecification,
)
from bnn_deploy.targets.kernels.packing.bitpack import TERNARY_THRESHOLD, above, below
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    WORD,
    Index,
    constant,
    finished,
    let,
    loop,
    primitive_function,
    view,
)
from bnn_deploy.targets.kernels.words import WORD_BITS, ceil_divide, word_count

# Four warps: the threads of a multiprocessor are full with the 16 or 32 blocks that it holds at most.
WARPS = 4
# Words of a warp: four reads of every lane under way; one where there would be fewer blocks than an H200 has multiprocessors.
WORDS = 4
BLOCKS_WANTED = 132


def kernel(specification: PackSpecification, gpu: Gpu) -> Kernel:
    """The kernel over the parameters of the one for processors."""
    return Kernel(f"{specification.name}_ballot", "pack", specification, partial(build, specification))


def build(specification: PackSpecification) -> PrimFunc:
    """TIR of ``kernel``.

    Raises:
        CompileError: a tensor is too large for int32 indices.
    """
    require_int32_indices(f"{specification.name}_ballot", specification.input_shape, specification.output_shape)
    pixels = specification.batch * specification.height * specification.width
    total = pixels * word_count(specification.channels)
    count = WORDS if ceil_divide(total, WARPS * WORDS) >= BLOCKS_WANTED else 1
    with primitive_function(**specification.parameters) as (builder, (x, *others)):
        operands, outputs = others[: len(specification.operands)], others[len(specification.operands) :]
        values = view("X_values", x, (pixels * specification.channels,))
        results = [view(f"{y.name}_words", y, (prod(specification.output_shape),)) for y in outputs]
        with (
            T.launch_thread("blockIdx.x", ceil_divide(total, WARPS * count)) as block,
            T.launch_thread("threadIdx.x", WARPS * WARP) as thread,
        ):
            lane = let("lane", thread % WARP)
            first = let("first", (block * WARPS + thread // WARP) * count)
            words = _Words(specification, total, count, first, lane)
            read = T.alloc_buffer((count,), FLOAT, scope="local")
            positive = T.alloc_buffer((count,), WORD, scope="local")
            negative = T.alloc_buffer((count,), WORD, scope="local")
            with loop("word", count, "unroll") as i:
                T.buffer_store(read, words.value(values, i), [i])
            for plane, result in enumerate(results):
                with loop("word", count, "unroll") as i:
                    comparisons = _comparisons(specification, words, operands, plane, read[i], i)
                    for bits, condition in zip((positive, negative), comparisons, strict=False):
                        own = T.alloc_buffer((1,), WORD, scope="local")
                        T.buffer_store(own, T.Cast(WORD, condition), [0])
                        ballot((bits, i), (own, 0))
                words.store(result, positive, negative if len(comparisons) == 2 else None)
    return finished(builder)


def _comparisons(
    specification: PackSpecification, words: _Words, operands: list[Buffer], plane: int, value: Expr, i: Index
) -> tuple[Expr, ...]:
    """Whether a value is +1, and where there is a 0, whether it is -1."""
    if isinstance(specification, SignPackSpecification):
        images, _, _, channels = specification.threshold_shape
        at = [words.image(i) if images > 1 else 0, 0, 0, words.channel(i) if channels > 1 else 0]
        bound = operands[0][at]
    elif isinstance(specification, MultiSignPackSpecification):
        bound = operands[0][plane, words.channel(i)]
    else:
        if isinstance(specification, MultiTernaryPackSpecification):
            value = let("biased", value + operands[0][plane, words.channel(i)])
        half = T.FloatImm(FLOAT, TERNARY_THRESHOLD)
        return above(value, half, -1), below(value, T.FloatImm(FLOAT, -TERNARY_THRESHOLD))
    bound = let("bound", bound)
    positive = above(value, bound, specification.zero)
    return (positive, below(value, bound)) if specification.three_valued else (positive,)


@dataclass(frozen=True)
class _Words:
    """The words that a warp makes: ``count`` from ``first`` on, counted over all pixels; ``total`` of all warps."""

    specification: PackSpecification
    total: int
    count: int
    first: Expr
    lane: Expr

    @property
    def _pixel_words(self) -> int:
        return word_count(self.specification.channels)

    def _word(self, i: Index) -> Expr:
        """The i-th word, or the last one of all for warps that have less to do."""
        word = self.first + i
        return word if self.total % (WARPS * self.count) == 0 else T.min(word, self.total - 1)

    def channel(self, i: Index) -> Expr:
        """The lane's channel, or the last one if it has none."""
        channel = self._word(i) % self._pixel_words * WORD_BITS + self.lane
        return T.min(channel, self.specification.channels - 1) if self._tail else channel

    def image(self, i: Index) -> Expr:
        """The image that the i-th word is of."""
        return self._word(i) // (self.specification.height * self.specification.width * self._pixel_words)

    def value(self, values: Buffer, i: Index) -> Expr:
        """The lane's value of the i-th word, NaN if it has none."""
        if not self._tail:
            return values[self._word(i) * WORD_BITS + self.lane]
        value = values[self._word(i) // self._pixel_words * self.specification.channels + self.channel(i)]
        is_there = self._word(i) % self._pixel_words * WORD_BITS + self.lane < self.specification.channels
        return T.if_then_else(is_there, value, T.FloatImm(FLOAT, float("nan")))

    @property
    def _tail(self) -> bool:
        return self.specification.channels % WORD_BITS != 0

    def store(self, result: Buffer, positive: Buffer, negative: Buffer | None) -> None:
        """Lane ``i`` stores the i-th word, or both planes of it: not 0, and positive."""
        own = let("own", T.min(self.lane, self.count - 1))
        word = let("word", self.first + own)
        with T.If((self.lane < self.count) & (word < self.total)), T.Then():
            upper = let("positive", _chosen(positive, own, self.count))
            if negative is None:
                T.buffer_store(result, upper, [word])
                return
            row_words = self.specification.width * self._pixel_words
            place = let("place", word // row_words * 2 * row_words + word % row_words)
            T.buffer_store(result, upper | _chosen(negative, own, self.count), [place])
            T.buffer_store(result, upper, [place + row_words])


def _chosen(words: Buffer, index: Expr, count: int) -> Expr:
    """``words[index]`` without an index that varies: words stay in registers."""
    chosen = words[0]
    for i in range(1, count):
        chosen = T.Select(index == constant(i, "int32"), words[i], chosen)
    return chosen
