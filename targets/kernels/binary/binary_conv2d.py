"""``binary_conv2d``: xor + popcount convolution of channel-packed words, vectorised over output channels.

An implicit GEMM without im2col. A register tile is some neighbouring pixels by some vectors of output channels, and each word
of X is broadcast over the lanes. Tiles inside the image read X as it is; tiles that touch a padded column mask what they
read, and padded rows are skipped, so that padding contributes exactly 0.

It serves groups of any size (see ``operands``), three-valued activations, and a scale per tap.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.binary.convolution_tile import ConvolutionTile, TilePosition
from bnn_deploy.targets.kernels.binary.counting_tiling import CountingTile, CountingTiling
from bnn_deploy.targets.kernels.binary.tasks import first_output, tasks, tile_columns, weight_blocks
from bnn_deploy.targets.kernels.binary.tile_store import TileStore
from bnn_deploy.targets.kernels.binary.valid_products import emit_valid_products
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.operands import block_origin, group_word_loader
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import INTEGER, finished, let, primitive_function, registers, view, when
from bnn_deploy.targets.kernels.weights import weight_words
from bnn_deploy.targets.kernels.words import WORD_BITS


def kernel(specification: ConvolutionSpecification, target: Target, widest: CountingTile) -> Kernel:
    """The kernel of any layer, by the widest register tile of the target."""
    tiling = CountingTiling(specification, widest)
    tap = "_tap" if specification.tap_scaled else ""
    block = tiling.tile.block
    # An epilogue reads its operands by whole vectors, and makes words of whole tiles.
    plain = specification.group == 1 and not specification.tap_scaled
    able = plain and specification.out_channels % block == 0 and WORD_BITS % block == 0
    return Kernel(
        f"{specification.values}_conv2d{tap}_{tiling.name}",
        "binary",
        specification,
        partial(build, tiling),
        partial(pack_weights, tiling=tiling),
        takes_epilogue=able,
        packs_signs=able and block == WORD_BITS and target.architecture == "x86_64",
    )


def pack_weights(weights: np.ndarray, tiling: CountingTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    tile = tiling.tile
    blocks = tiling.output_blocks(weight_words(weights, tiling.specification))
    blocks = blocks.reshape(len(blocks), tile.vectors, tile.lanes, *blocks.shape[2:])
    return np.ascontiguousarray(blocks.transpose(0, 3, 4, 1, 2))


def build(tiling: CountingTiling) -> PrimFunc:
    """The kernel over ``convolution_parameters``.

    ``y = fma(dot, scale, shift)``; with a scale per tap, in the order of the taps,
    ``y = fma(dot_T, scale_T, … fma(dot_1, scale_1, 0)) + shift``; then the epilogue.
    """
    layer = tiling.specification
    with primitive_function(**convolution_parameters(layer, tiling.weights_shape)) as (
        builder,
        (x, weights, scale, shift, *stored),
    ):
        origin = block_origin(layer)
        load = group_word_loader(image_view(tiling, x), layer)
        result = TileStore(layer, stored, (tiling.batch, tiling.rows, tiling.columns))
        with tasks(tiling, origin) as task, tile_columns(tiling) as column:
            valid = registers("valid", INTEGER, tiling.tile.pixels)
            if layer.group == 1 and not layer.tap_scaled:
                emit_valid_products(tiling, load, task.n, task.row, column, 0, valid)
            with weight_blocks(tiling, task.chunk) as block:
                group = let("group", block // tiling.group_blocks)
                output = first_output(tiling, block, group)
                if layer.group > 1 and not layer.tap_scaled:
                    emit_valid_products(tiling, load, task.n, task.row, column, group, valid)
                position = TilePosition(task, column, block, group, output)
                emit_tile(ConvolutionTile(tiling, position, load, weights, scale, valid), shift, result)
    return finished(builder)


def image_view(tiling: CountingTiling, x: Buffer) -> Buffer:
    """X as the kernel walks it: uint32 (N, H, planes, W, words)."""
    layer = tiling.specification
    _, _, planes, _, words = layer.plane_shape
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
