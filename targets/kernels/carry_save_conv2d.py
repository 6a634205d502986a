"""``binary_conv2d`` by carry-save chains: NEON vectors along K, one tree of pairwise sums for eight output channels.

A task computes some blocks of eight output channels for one row of output pixels. For a tile of pixels it first
gathers the words of all taps (zeros where a tap falls into padding) and replaces them by running xors, see
``carry_save``; every block of channels then reads nothing but those and its weights. Popcounts of bytes are added
pairwise across the channels of the block, so that two or four bytes are left of each channel when they are widened.

What padding must not contribute, the popcount of the weights of the taps in it, is packed beside the weights and
taken off again for the pixels at the border.
"""

from __future__ import annotations

import numpy as np
from tvm.ir import Expr
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.carry_save_block import SHORT, BlockCounter
from bnn_deploy.targets.kernels.carry_save_pixel import PixelWords
from bnn_deploy.targets.kernels.carry_save_tiling import BLOCK_OUTPUTS, CarrySaveTiling
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.specification import ceil_divide, word_count
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    INTEGER,
    WORD,
    cast,
    constant,
    finished,
    fused_multiply_add,
    lanes_at,
    let,
    loop,
    primitive_function,
    spread,
    view,
)
from bnn_deploy.targets.kernels.weights import weight_words


def pack_weights(weights: np.ndarray, tiling: CarrySaveTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    layer = tiling.specification
    words = weight_words(weights, layer)
    last = layer.group_outputs - BLOCK_OUTPUTS
    starts = [
        group * layer.group_outputs + min(index * BLOCK_OUTPUTS, last)
        for group in range(layer.group)
        for index in range(tiling.group_blocks)
    ]
    blocks = np.stack([words[start : start + BLOCK_OUTPUTS] for start in starts])
    flat = blocks.reshape(len(starts), BLOCK_OUTPUTS, tiling.pixel_words)
    size = tiling.width_words
    flat = np.pad(flat, ((0, 0), (0, 0), (0, tiling.steps * size - tiling.pixel_words)))
    vectors = flat.reshape(len(starts), BLOCK_OUTPUTS, tiling.steps, size)
    parts, first = [], 0
    for chain in tiling.chains:
        part = chain.pack(vectors[:, :, first : first + chain.length])
        # (blocks, columns, channels of a column, steps, words) -> (blocks, columns, steps, channels, words)
        part = part.reshape(len(starts), tiling.columns_of_block, -1, chain.length, size).swapaxes(2, 3)
        parts.append(part.reshape(len(starts), -1))
        first += chain.length
    if tiling.padded:
        counts = np.bitwise_count(blocks).sum(-1).astype(np.int16).transpose(0, 2, 1)
        parts.append(np.ascontiguousarray(counts).view(np.uint32).reshape(len(starts), -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def build(tiling: CarrySaveTiling) -> PrimFunc:
    """The kernel ``(X, weights, scale, shift, Y[, block])``, see ``binary_conv2d.build``."""
    layer, tile = tiling.specification, tiling.tile
    batch, rows, columns = tiling.batch, tiling.rows, tiling.columns
    chunks = tiling.weights_shape[0] // tiling.chunk_blocks
    with primitive_function(
        X=(layer.input_shape, WORD),
        weights=(tiling.weights_shape, WORD),
        scale=(layer.scale_shape, FLOAT),
        shift=((layer.out_channels,), FLOAT),
        Y=(layer.output_shape, FLOAT),
    ) as (builder, (x, weights, scale, shift, y)):
        first_image, first_row = block_origin(layer)
        images = 1 if tiling.flat else layer.batch
        image = view("image", x, (images, tiling.height, tiling.width, word_count(layer.in_channels)))
        result = view("result", y, (batch, rows, columns, layer.out_channels))
        with loop("task", chunks * batch * rows, "parallel") as task:
            chunk = let("chunk", task // (batch * rows))
            result_image, result_row = (
                let("result_image", task % (batch * rows) // rows),
                let("result_row", task % rows),
            )
            n, row = let("n", first_image + result_image), let("row", first_row + result_row)
            group = let("group", chunk * tiling.chunk_blocks // tiling.group_blocks) if layer.group > 1 else 0
            with loop("tile", ceil_divide(columns, tile.pixels)) as index:
                # The last tile of a row, and the last block of a group, overlap their neighbour.
                column = let("column", T.min(index * tile.pixels, columns - tile.pixels))
                pixels = [PixelWords(tiling, image, n, row, column + p, group) for p in range(tile.pixels)]
                with loop("block", tiling.chunk_blocks) as part:
                    block = let("weight_block", chunk * tiling.chunk_blocks + part)
                    first = T.min(block % tiling.group_blocks * BLOCK_OUTPUTS, layer.group_outputs - BLOCK_OUTPUTS)
                    output = let("output", group * layer.group_outputs + first)
                    counter = BlockCounter(tiling, weights, block, pixels)
                    for p, half in enumerate(counter.half_dot_products()):
                        for v, part_of in enumerate((T.vectorlow, T.vectorhigh)):
                            at = lanes_at(output + 4 * v, 4)
                            dot = doubled(part_of(f"{SHORT}x4", half))
                            if layer.group_channels % 2:
                                dot = dot + spread(pixels[p].valid & 1, 4)
                            value = fused_multiply_add(cast(dot, FLOAT, 4), scale[at], shift[at], 4)
                            T.buffer_store(result, value, [result_image, result_row, column + p, at])
    return finished(builder)


def doubled(half: Expr) -> Expr:
    """Twice the four int16 as int32."""
    return cast(half, INTEGER, 4) << constant(1, INTEGER, 4)
