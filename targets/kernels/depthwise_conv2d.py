"""``binary_depthwise_conv2d``: one output channel per group and 1, 2, 4, 8 or 16 input channels in it.

A word of X holds a field of ``C / group`` bits for each of 32, 16, 8, 4 or 2 neighbouring output channels. The layers of
BiMLP (1x7 and 7x1, one or two channels per group) have only 7 or 14 bits per output: ``depthwise_rows`` computes whole
rows of those at once. Every other shape goes field by field (``depthwise_fields``).
"""

from __future__ import annotations

import numpy as np
from tvm.tirx import Buffer, PrimFunc

from bnn_deploy.targets.kernels.bit_planes import LARGEST_VECTOR
from bnn_deploy.targets.kernels.depthwise_fields import FieldEmitter
from bnn_deploy.targets.kernels.depthwise_rows import emit_row, is_row_layer
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.specification import WORD_BITS, ConvolutionSpecification, word_count
from bnn_deploy.targets.kernels.vector import FLOAT, WORD, Index, finished, let, loop, primitive_function, view
from bnn_deploy.targets.kernels.weights import channel_words


def is_depthwise(specification: ConvolutionSpecification) -> bool:
    """Whether this family computes the layer: one output per group, and fields that divide a word."""
    channels = specification.group_channels
    return specification.group_outputs == 1 and channels < WORD_BITS and WORD_BITS % channels == 0


def fields_per_word(specification: ConvolutionSpecification) -> int:
    """Output channels whose input bits share one word."""
    return WORD_BITS // specification.group_channels


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
    """The kernel ``(X, weights, scale, shift, Y)``; parameters as in ``binary_conv2d`` but for ``weights_shape``.

    ``lanes``: float32 in a vector of the target, cut down to the fields of a word.
    """
    layer = specification
    batch, rows, _, outputs = layer.output_shape
    with primitive_function(
        X=(layer.input_shape, WORD),
        weights=(weights_shape(layer), WORD),
        scale=(layer.scale_shape, FLOAT),
        shift=((outputs,), FLOAT),
        Y=(layer.output_shape, FLOAT),
    ) as (builder, parameters):
        first_image, first_row = block_origin(layer)
        with loop("task", batch * rows, "parallel") as task:
            result_image, result_row = let("result_image", task // rows), let("result_row", task % rows)
            image, row = let("image_index", first_image + result_image), let("row", first_row + result_row)
            if is_row_layer(layer):
                emit_row(layer, lanes, parameters, (image, row, task))
            else:
                _emit_fields(layer, lanes, parameters, (image, row), (result_image, result_row))
    return finished(builder)


def _emit_fields(
    layer: ConvolutionSpecification,
    lanes: int,
    parameters: list[Buffer],
    position: tuple[Index, Index],
    result: tuple[Index, Index],
) -> None:
    """One row of Y, every word of every pixel by itself; ``position``, ``result``: (image, row) in the layer and in Y."""
    x, weights, scale, shift, y = parameters
    _, _, columns, outputs = layer.output_shape
    planes = 2 if layer.ternary else 1
    image = view("image", x, (layer.batch, layer.height, planes, layer.width, word_count(layer.in_channels)))
    emitter = FieldEmitter(layer, image, weights, scale, shift, y)
    fields = fields_per_word(layer)
    with loop("column", columns) as column:
        pixel, result_pixel = (*position, column), (*result, column)
        if outputs >= fields:
            with loop("word", outputs // fields) as word:
                emitter.emit(pixel, result_pixel, word, 0, lanes, fields // lanes)
        if outputs % fields:
            with loop("field", outputs % fields) as field:
                emitter.emit(pixel, result_pixel, outputs // fields, field, 1, 1)
