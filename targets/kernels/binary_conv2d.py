"""``binary_conv2d``: xor + popcount convolution of channel-packed words, vectorised over output channels.

An implicit GEMM without im2col. A task computes a chunk of output-channel blocks for one row of output pixels; a
register tile is some neighbouring pixels by some vectors of output channels, and each word of X is broadcast over the
lanes. Tiles inside the image read X as it is; tiles that touch a padded column mask what they read, and padded rows
are skipped, so that padding contributes exactly 0.

It serves groups of any size (see ``operands``), three-valued activations, and a scale per tap.
"""

from __future__ import annotations

import numpy as np
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.convolution_tile import ConvolutionTile, TilePosition
from bnn_deploy.targets.kernels.operands import block_origin, group_word_loader
from bnn_deploy.targets.kernels.specification import ceil_divide, word_count
from bnn_deploy.targets.kernels.tile_store import TileStore, store_parameters
from bnn_deploy.targets.kernels.tiling import Tiling
from bnn_deploy.targets.kernels.valid_products import emit_valid_products
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    INTEGER,
    WORD,
    finished,
    let,
    loop,
    primitive_function,
    registers,
    view,
    when,
)
from bnn_deploy.targets.kernels.weights import weight_words


def pack_weights(weights: np.ndarray, tiling: Tiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    layer, tile = tiling.specification, tiling.tile
    words = weight_words(weights, layer)
    last = layer.group_outputs - tile.block
    starts = [
        group * layer.group_outputs + min(index * tile.block, last)
        for group in range(layer.group)
        for index in range(tiling.group_blocks)
    ]
    blocks = np.stack([words[start : start + tile.block] for start in starts])
    blocks = blocks.reshape(len(starts), tile.vectors, tile.lanes, *words.shape[1:])
    return np.ascontiguousarray(blocks.transpose(0, 3, 4, 1, 2))


def build(tiling: Tiling) -> PrimFunc:
    """The kernel ``(X, weights, scale, shift, Y)``.

    X uint32 ``specification.input_shape``; weights uint32 ``tiling.weights_shape``; scale float32
    ``specification.scale_shape``; shift float32 (O,); Y float32 ``specification.output_shape``.
    ``y = fma(dot, scale, shift)``; with a scale per tap, in the order of the taps,
    ``y = fma(dot_T, scale_T, … fma(dot_1, scale_1, 0)) + shift``. With ``specification.block_rows``, the index of the
    block is a last parameter, int32. With ``specification.epilogue``, what it reads comes after shift, and Y is what it
    stores (see ``tile_store``).
    """
    layer, tile = tiling.specification, tiling.tile
    batch, rows, columns = tiling.batch, tiling.rows, tiling.columns
    chunks = tiling.weights_shape[0] // tiling.chunk_blocks
    with primitive_function(
        X=(layer.input_shape, WORD),
        weights=(tiling.weights_shape, WORD),
        scale=(layer.scale_shape, FLOAT),
        shift=((layer.out_channels,), FLOAT),
        **store_parameters(layer),
    ) as (builder, (x, weights, scale, shift, *stored)):
        first_image, first_row = block_origin(layer)
        load = group_word_loader(image_view(tiling, x), layer)
        result = TileStore(layer, stored, (batch, rows, columns))
        with loop("task", chunks * batch * rows, "parallel") as task:
            chunk = let("chunk", task // (batch * rows))
            result_pixel = (let("result_image", task % (batch * rows) // rows), let("result_row", task % rows))
            n, row = let("n", first_image + result_pixel[0]), let("row", first_row + result_pixel[1])
            with loop("tile", ceil_divide(columns, tile.pixels)) as index:
                # The last tile of a row, and the last block of a group, overlap their neighbour.
                column = let("column", T.min(index * tile.pixels, columns - tile.pixels))
                valid = registers("valid", INTEGER, tile.pixels)
                if layer.group == 1 and not layer.tap_scaled:
                    emit_valid_products(tiling, load, n, row, column, 0, valid)
                with loop("block", tiling.chunk_blocks) as part:
                    block = let("weight_block", chunk * tiling.chunk_blocks + part)
                    group = let("group", block // tiling.group_blocks)
                    first = T.min(block % tiling.group_blocks * tile.block, layer.group_outputs - tile.block)
                    output = let("output", group * layer.group_outputs + first)
                    if layer.group > 1 and not layer.tap_scaled:
                        emit_valid_products(tiling, load, n, row, column, group, valid)
                    position = TilePosition(n, row, result_pixel, column, block, group, output)
                    emit_tile(ConvolutionTile(tiling, position, load, weights, scale, valid), shift, result)
    return finished(builder)


def image_view(tiling: Tiling, x: Buffer) -> Buffer:
    """X as the kernel walks it: uint32 (N, H, planes, W, words)."""
    layer = tiling.specification
    planes, words = 2 if layer.ternary else 1, word_count(layer.in_channels)
    shape = (1 if tiling.flat else layer.batch, tiling.height, planes, tiling.width, words)
    # A flat row of what were rows of one pixel: the planes of each pixel follow one another.
    row = tiling.width * planes * words
    strides = (tiling.height * row, row, words, planes * words, 1) if layer.width == 1 else None
    return view("image", x, shape, strides)


def emit_tile(tile: ConvolutionTile, shift: Buffer, result: TileStore) -> None:
    """The statements of one register tile, in a version without masks where no tap falls into the padding."""
    tile.clear()
    inside = tile.is_inside()
    with when(inside):
        tile.emit_taps(masked=False)
    if inside is not True:
        with when(T.Not(inside)):
            tile.emit_taps(masked=True)
    tile.store(shift, result)
