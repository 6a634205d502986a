"""The loops of convolutions that gather the words of a tile's pixels before they walk its blocks of output channels.

A task computes some blocks of output channels for one row of output pixels. What padding must not contribute is the
popcount of the weights of the taps in it: such taps are gathered as 0, and what they counted is taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.gathered_pixel import GatheredPixel
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.specification import ceil_divide, word_count
from bnn_deploy.targets.kernels.tile_store import TileStore, store_parameters
from bnn_deploy.targets.kernels.tiling import Tiling
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    WORD,
    Index,
    cast,
    finished,
    fused_multiply_add,
    lanes_at,
    let,
    loop,
    primitive_function,
    view,
)

Pixel = TypeVar("Pixel", bound=GatheredPixel)


def output_blocks(words: np.ndarray, tiling: Tiling, outputs: int) -> np.ndarray:
    """(O, taps, words) as (group * blocks, ``outputs``, taps, words); a group's last block overlaps its neighbour."""
    layer = tiling.specification
    last = layer.group_outputs - outputs
    starts = [
        group * layer.group_outputs + min(index * outputs, last)
        for group in range(layer.group)
        for index in range(tiling.group_blocks)
    ]
    return np.stack([words[start : start + outputs] for start in starts])


def build(
    tiling: Tiling,
    outputs: int,
    lanes: int,
    make_pixel: Callable[[Tiling, Buffer, Index, Index, Index, Index], Pixel],
    dot_products: Callable[[Tiling, Buffer, Index, list[Pixel]], Sequence[Sequence[Expr]]],
) -> PrimFunc:
    """The kernel ``(X, weights, scale, shift, Y[, block])``, see ``binary_conv2d.build``.

    Args:
        tiling: the layer cut up.
        outputs: output channels of a block.
        lanes: output channels in a vector of dot products.
        make_pixel: emits the words of one pixel from (tiling, image, n, row, column, group).
        dot_products: emits from (tiling, weights, block, pixels) the block's int32 vectors for every pixel.
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
        images = 1 if tiling.flat else layer.batch
        image = view("image", x, (images, tiling.height, tiling.width, word_count(layer.in_channels)))
        result = TileStore(layer, stored, (batch, rows, columns))
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
                pixels = [make_pixel(tiling, image, n, row, column + p, group) for p in range(tile.pixels)]
                with loop("block", tiling.chunk_blocks) as part:
                    block = let("weight_block", chunk * tiling.chunk_blocks + part)
                    first = T.min(block % tiling.group_blocks * outputs, layer.group_outputs - outputs)
                    output = let("output", group * layer.group_outputs + first)
                    for p, dots in enumerate(dot_products(tiling, weights, block, pixels)):
                        outputs = [lanes_at(output + lanes * v, lanes) for v in range(len(dots))]
                        values = [
                            fused_multiply_add(cast(dot, FLOAT, lanes), scale[at], shift[at], lanes)
                            for dot, at in zip(dots, outputs, strict=True)
                        ]
                        result.store((result_image, result_row, column + p), output, values, lanes)
    return finished(builder)
