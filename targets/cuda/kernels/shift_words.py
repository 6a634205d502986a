"""``shift_words`` on a GPU: one thread moves up to four words of a pixel, as many as all segments are multiples of."""

from __future__ import annotations

from functools import partial
from math import prod

from tvm.ir import Expr
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.kernels.index_range import require_int32_indices
from bnn_deploy.targets.cuda.kernels.shifted_words import piece_words
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.packing.shift_words import wrapped
from bnn_deploy.targets.kernels.specification import ShiftWordsSpecification
from bnn_deploy.targets.kernels.vector import WORD, finished, lanes_at, let, primitive_function, view
from bnn_deploy.targets.kernels.words import ceil_divide

THREADS = 128


def kernel(specification: ShiftWordsSpecification, gpu: Gpu) -> Kernel:
    """The kernel ``(X, Y)``: uint32 ``specification.input_shape`` and ``specification.output_shape``."""
    return Kernel(_name(specification), "pack", specification, partial(build, specification))


def _name(specification: ShiftWordsSpecification) -> str:
    return f"shift_words_u32x{lanes_of(specification)}"


def lanes_of(specification: ShiftWordsSpecification) -> int:
    """The words of a piece."""
    return piece_words(specification.words, specification.segments)


def build(specification: ShiftWordsSpecification) -> PrimFunc:
    """TIR of ``kernel``.

    Raises:
        CompileError: a tensor is too large for int32 indices.
    """
    require_int32_indices(_name(specification), specification.input_shape, specification.output_shape)
    _, height, width, words = specification.output_shape
    lanes = lanes_of(specification)
    pieces = prod(specification.output_shape) // lanes
    with primitive_function(X=(specification.input_shape, WORD), Y=(specification.output_shape, WORD)) as (
        builder,
        (x, y),
    ):
        source = view("X_words", x, (prod(specification.input_shape),))
        result = view("Y_words", y, (prod(specification.output_shape),))
        with (
            T.launch_thread("blockIdx.x", ceil_divide(pieces, THREADS)) as block,
            T.launch_thread("threadIdx.x", THREADS) as thread,
        ):
            piece = let("piece", block * THREADS + thread)
            with T.If(piece < pieces), T.Then():
                pixel, own = let("pixel", piece // (words // lanes)), let("own", piece % (words // lanes))
                image, row, column = pixel // (height * width), pixel // width % height, pixel % width
                place = _place(specification, let("image", image), let("row", row), let("column", column), own)
                # TVM loads a vector in one piece where it sees that the index is a multiple of the lanes.
                T.buffer_store(result, source[lanes_at(place * lanes, lanes)], [lanes_at(piece * lanes, lanes)])
    return finished(builder)


def _place(specification: ShiftWordsSpecification, image: Expr, row: Expr, column: Expr, piece: Expr) -> Expr:
    """Which piece of X a piece of an output's pixel is: those of the segments, chosen by where it lies."""
    height, width, lanes = specification.height, specification.width, lanes_of(specification)
    place, start = None, 0
    for first, count, row_shift, column_shift in specification.segments:
        from_row, from_column = wrapped(row, row_shift, height), wrapped(column, column_shift, width)
        pixel = (image * height + from_row) * width + from_column
        own = pixel * (specification.words // lanes) + (first - start) // lanes + piece
        place = own if place is None else T.Select(piece >= start // lanes, own, place)
        start += count
    return let("place", place)
