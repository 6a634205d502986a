"""``binary_conv2d`` by carry-save chains: NEON vectors along K, one tree of pairwise sums for eight output channels.

For a tile of pixels a task first gathers the words of all taps (zeros where a tap falls into padding) and replaces them by
running xors, see ``carry_save_chain``; every block of channels then reads nothing but those and its weights. Popcounts of
bytes are added pairwise across the channels of the block, so that two or four bytes are left of each channel when they are
widened.

What padding must not contribute, the popcount of the weights of the taps in it, is packed beside the weights and
taken off again for the pixels at the border.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.binary import gathered_conv2d
from bnn_deploy.targets.kernels.binary.carry_save_block import SHORT, BlockCounter
from bnn_deploy.targets.kernels.binary.carry_save_pixel import PixelWords
from bnn_deploy.targets.kernels.binary.carry_save_tiling import BLOCK_OUTPUTS, CarrySaveTiling, ChainStyle
from bnn_deploy.targets.kernels.binary.gathered_tiling import fits
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import INTEGER, Index, cast, constant, spread
from bnn_deploy.targets.kernels.weights import weight_words


def kernel(specification: ConvolutionSpecification, target: Target, style: ChainStyle) -> Kernel | None:
    """The kernel with chains in the style of the target's cores; None for layers that are not gathered."""
    if not fits(specification, BLOCK_OUTPUTS):
        return None
    tiling = CarrySaveTiling(specification, style)
    build_kernel, pack = partial(build, tiling), partial(pack_weights, tiling=tiling)
    return Kernel(f"binary_conv2d_{tiling.name}", "binary", specification, build_kernel, pack)


def pack_weights(weights: np.ndarray, tiling: CarrySaveTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    blocks = tiling.output_blocks(weight_words(weights, tiling.specification))
    flat = blocks.reshape(len(blocks), BLOCK_OUTPUTS, tiling.pixel_words)
    size = tiling.width_words
    flat = np.pad(flat, ((0, 0), (0, 0), (0, tiling.steps * size - tiling.pixel_words)))
    vectors = flat.reshape(len(blocks), BLOCK_OUTPUTS, tiling.steps, size)
    parts, first = [], 0
    for chain in tiling.chains:
        part = chain.pack(vectors[:, :, first : first + chain.length])
        # (blocks, columns, channels of a column, steps, words) -> (blocks, columns, steps, channels, words)
        part = part.reshape(len(blocks), tiling.columns_of_block, -1, chain.length, size).swapaxes(2, 3)
        parts.append(part.reshape(len(blocks), -1))
        first += chain.length
    if tiling.padded:
        counts = np.bitwise_count(blocks).sum(-1).astype(np.int16).transpose(0, 2, 1)
        parts.append(np.ascontiguousarray(counts).view(np.uint32).reshape(len(blocks), -1))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def build(tiling: CarrySaveTiling) -> PrimFunc:
    """The kernel over ``convolution_parameters``, see ``binary_conv2d.build``."""
    return gathered_conv2d.build(tiling, 4, PixelWords, dot_products)


def dot_products(
    tiling: CarrySaveTiling, weights: Buffer, block: Index, pixels: list[PixelWords]
) -> Iterator[list[Expr]]:
    """The dot products of one block with every pixel, int32."""
    halves = BlockCounter(tiling, weights, block, pixels).half_dot_products()
    for pixel, half in zip(pixels, halves, strict=True):
        dots = [doubled(part_of(f"{SHORT}x4", half)) for part_of in (T.vectorlow, T.vectorhigh)]
        if tiling.specification.group_channels % 2:
            dots = [dot + spread(pixel.valid & 1, 4) for dot in dots]
        yield dots


def doubled(half: Expr) -> Expr:
    """Twice the four int16 as int32."""
    return cast(half, INTEGER, 4) << constant(1, INTEGER, 4)
