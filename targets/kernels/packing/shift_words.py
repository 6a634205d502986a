"""``shift_words``: move words of an image by rows and columns, wrapping around its edges.

ShiftBlock rolls each quarter of the channels in another direction. The channels of a roll are whole words, so that a roll is
a copy of words from another pixel: less than a hundredth of the work of the layer that reads it.
"""

from __future__ import annotations

from functools import partial

from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.specification import ShiftWordsSpecification
from bnn_deploy.targets.kernels.vector import WORD, Index, finished, lanes_at, let, loop, primitive_function


def kernel(specification: ShiftWordsSpecification, target: Target) -> Kernel:
    """The kernel with registers of the target's width."""
    lanes = target.float_lanes
    return Kernel(f"shift_words_u32x{lanes}", "pack", specification, partial(build, specification, lanes))


def build(specification: ShiftWordsSpecification, lanes: int) -> PrimFunc:
    """The kernel ``(X, Y)``, and with ``block_rows`` the index of the block, int32, as a last parameter.

    X: uint32 ``specification.input_shape``; Y: uint32 ``specification.output_shape``; ``lanes``: words of a register.
    """
    images, rows, columns, _ = specification.output_shape
    with primitive_function(X=(specification.input_shape, WORD), Y=(specification.output_shape, WORD)) as (
        builder,
        (x, y),
    ):
        first_image, first_row = block_origin(specification)
        with loop("task", images * rows, "parallel") as task:
            result_image, result_row = let("result_image", task // rows), let("result_row", task % rows)
            with loop("column", columns) as column:
                start = 0
                for first, words, row_shift, column_shift in specification.segments:
                    source = [
                        first_image + result_image,
                        wrapped(first_row + result_row, row_shift, specification.height),
                        wrapped(column, column_shift, specification.width),
                    ]
                    _copy(x, [*source, first], y, [result_image, result_row, column, start], words, lanes)
                    start += words
    return finished(builder)


def wrapped(position: Index, shift: int, extent: int) -> Index:
    """``(position + shift) modulo extent``; the position is within the extent."""
    shift %= extent
    if shift == 0:
        return position
    moved = let("moved", position + shift)
    return let("wrapped", T.Select(moved >= extent, moved - extent, moved))


def _copy(x: Buffer, source: list[Index], y: Buffer, target: list[Index], words: int, lanes: int) -> None:
    (*from_pixel, from_word), (*to_pixel, to_word) = source, target
    done = 0
    while done < words:
        count = min(lanes, 1 << ((words - done).bit_length() - 1))
        place = (*from_pixel, lanes_at(from_word + done, count))
        T.buffer_store(y, x[place], [*to_pixel, lanes_at(to_word + done, count)])
        done += count
