"""The loops of convolutions that gather the words of a tile's pixels before they walk its blocks of output channels.

What padding must not contribute is the
popcount of the weights of the taps in it: such taps are gathered as 0, and what they counted is taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc

from bnn_deploy.targets.kernels.binary.gathered_pixel import AnyTiling, GatheredPixel
from bnn_deploy.targets.kernels.binary.tasks import first_output, tasks, tile_columns, weight_blocks
from bnn_deploy.targets.kernels.binary.tile_store import TileStore
from bnn_deploy.targets.kernels.operands import block_origin
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    Index,
    cast,
    finished,
    fused_multiply_add,
    lanes_at,
    let,
    primitive_function,
    view,
)
from bnn_deploy.targets.kernels.words import word_count

AnyPixel = TypeVar("AnyPixel", bound=GatheredPixel[Any])


def build(
    tiling: AnyTiling,
    lanes: int,
    make_pixel: Callable[[AnyTiling, Buffer, Index, Index, Index, Index], AnyPixel],
    dot_products: Callable[[AnyTiling, Buffer, Index, list[AnyPixel]], Iterable[Sequence[Expr]]],
) -> PrimFunc:
    """The kernel over ``convolution_parameters``, which computes what ``binary_conv2d`` does.

    Args:
        tiling: the layer cut up.
        lanes: output channels in a vector of dot products.
        make_pixel: emits the words of one pixel from (tiling, image, n, row, column, group).
        dot_products: emits from (tiling, weights, block, pixels) the block's int32 vectors for every pixel.
    """
    layer = tiling.specification
    with primitive_function(**convolution_parameters(layer, tiling.weights_shape)) as (
        builder,
        (x, weights, scale, shift, *stored),
    ):
        origin = block_origin(layer)
        images = 1 if tiling.flat else layer.batch
        image = view("image", x, (images, tiling.height, tiling.width, word_count(layer.in_channels)))
        result = TileStore(layer, stored, (tiling.batch, tiling.rows, tiling.columns))
        with tasks(tiling, origin) as task:
            group: Index = 0
            if layer.group > 1:
                group = let("group", task.chunk * tiling.chunk_blocks // tiling.group_blocks)
            with tile_columns(tiling) as column:
                columns = [column + p for p in range(tiling.tile.pixels)]
                pixels = [make_pixel(tiling, image, task.n, task.row, own, group) for own in columns]
                with weight_blocks(tiling, task.chunk) as block:
                    output = first_output(tiling, block, group)
                    for own, dots in zip(columns, dot_products(tiling, weights, block, pixels), strict=True):
                        places = [lanes_at(output + lanes * v, lanes) for v in range(len(dots))]
                        values = [
                            fused_multiply_add(cast(dot, FLOAT, lanes), scale[at], shift[at], lanes)
                            for dot, at in zip(dots, places, strict=True)
                        ]
                        result.store((*task.result_pixel, own), output, values, lanes)
    return finished(builder)
