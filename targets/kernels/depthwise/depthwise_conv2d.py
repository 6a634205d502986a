"""``binary_depthwise_conv2d``: one output channel per group and 1, 2, 4, 8 or 16 input channels in it.

A word of X holds a field of ``C / group`` bits for each of 32, 16, 8, 4 or 2 neighbouring output channels. The layers of
BiMLP (1x7 and 7x1, one or two channels per group) have only 7 or 14 bits per output: ``depthwise_rows`` computes whole
rows of those at once. Every other shape goes field by field (``depthwise_fields``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from tvm.tirx import PrimFunc

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.depthwise.bit_planes import LARGEST_VECTOR
from bnn_deploy.targets.kernels.depthwise.depthwise_fields import FieldEmitter
from bnn_deploy.targets.kernels.depthwise.depthwise_rows import emit_row, is_row_layer
from bnn_deploy.targets.kernels.depthwise.operands import Operands
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import Index, finished, let, loop, primitive_function, view
from bnn_deploy.targets.kernels.weights import channel_words
from bnn_deploy.targets.kernels.words import WORD_BITS, word_count


def is_depthwise(specification: ConvolutionSpecification) -> bool:
    """Whether this family computes the layer: one output per group, and fields that divide a word."""
    channels = specification.group_channels
    return specification.group_outputs == 1 and channels < WORD_BITS and WORD_BITS % channels == 0


def fields_per_word(specification: ConvolutionSpecification) -> int:
    """Output channels whose input bits share one word."""
    return WORD_BITS // specification.group_channels


def kernel(specification: ConvolutionSpecification, target: Target) -> Kernel | None:
    """The kernel of a depthwise layer; None of others."""
    if not is_depthwise(specification):
        return None
    lanes = min(target.float_lanes, fields_per_word(specification))
    tap = "_tap" if specification.tap_scaled else ""
    return Kernel(
        f"{specification.values}_depthwise_conv2d{tap}_u32x{lanes}",
        "binary",
        specification,
        partial(build, specification, lanes),
        partial(pack_weights, specification=specification),
    )


def weights_shape(specification: ConvolutionSpecification) -> tuple[int, int]:
    """Layout of the packed weights, uint32: (taps, words of an image's channels and the first of them again).

    A vector of words may begin at any of an image's words and go on into the next pixel.
    """
    return (specification.taps, word_count(specification.in_channels) + LARGEST_VECTOR - 1)


def pack_weights(weights: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``weights_shape``."""
    words = channel_words(weights, specification)
    repeated = np.arange(weights_shape(specification)[1]) % words.shape[1]
    return np.ascontiguousarray(words[:, repeated])


def build(specification: ConvolutionSpecification, lanes: int) -> PrimFunc:
    """The kernel over ``convolution_parameters``.

    ``lanes``: float32 in a vector of the target, cut down to the fields of a word.
    """
    layer = specification
    batch, rows, _, _ = layer.output_shape
    with primitive_function(**convolution_parameters(layer, weights_shape(layer))) as (builder, buffers):
        operands = Operands(*buffers)
        first_image, first_row = block_origin(layer)
        with loop("task", batch * rows, "parallel") as task:
            result_image, result_row = let("result_image", task // rows), let("result_row", task % rows)
            image, row = let("image_index", first_image + result_image), let("row", first_row + result_row)
            if is_row_layer(layer):
                emit_row(layer, lanes, operands, (image, row, task))
            else:
                _emit_fields(layer, lanes, operands, (image, row), (result_image, result_row))
    return finished(builder)


def _emit_fields(
    layer: ConvolutionSpecification,
    lanes: int,
    operands: Operands,
    position: tuple[Index, Index],
    result: tuple[Index, Index],
) -> None:
    """One row of Y, every word of every pixel by itself; ``position``, ``result``: (image, row) in the layer and in Y."""
    _, _, columns, outputs = layer.output_shape
    emitter = FieldEmitter(layer, replace(operands, image=view("image", operands.image, layer.plane_shape)))
    fields = fields_per_word(layer)
    with loop("column", columns) as column:
        pixel, result_pixel = (*position, column), (*result, column)
        if outputs >= fields:
            with loop("word", outputs // fields) as word:
                emitter.emit(pixel, result_pixel, word, 0, lanes, fields // lanes)
        if outputs % fields:
            with loop("field", outputs % fields) as field:
                emitter.emit(pixel, result_pixel, outputs // fields, field, 1, 1)
