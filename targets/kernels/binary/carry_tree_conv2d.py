"""``binary_conv2d`` by carry-save trees: lanes are output channels, words of K are added bit by bit before they are counted.

For a tile of pixels the words of all taps are gathered and paired (see ``carry_tree_adders``); every block of channels then
reads nothing but those, each word in all lanes, and its weights.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.binary import gathered_conv2d
from bnn_deploy.targets.kernels.binary.carry_tree_adders import pair_words
from bnn_deploy.targets.kernels.binary.carry_tree_block import PairedPixel, TreeBlock
from bnn_deploy.targets.kernels.binary.carry_tree_tiling import CarryTreeTiling, TreeStyle
from bnn_deploy.targets.kernels.binary.gathered_tiling import fits
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import Index
from bnn_deploy.targets.kernels.weights import weight_words
from bnn_deploy.targets.kernels.words import WORD_BITS


def kernel(specification: ConvolutionSpecification, target: Target, style: TreeStyle) -> Kernel | None:
    """The kernel with trees in the style of the target's processors; None for layers that are not gathered."""
    if not fits(specification, style.lanes):
        return None
    tiling = CarryTreeTiling(specification, style)
    block = tiling.tile.block
    # An epilogue reads its operands by whole vectors, and makes words of whole tiles.
    able = specification.group == 1 and specification.out_channels % block == 0 and WORD_BITS % block == 0
    return Kernel(
        f"binary_conv2d_{tiling.name}",
        "binary",
        specification,
        partial(build, tiling),
        partial(pack_weights, tiling=tiling),
        takes_epilogue=able,
        packs_signs=able and block == WORD_BITS,
    )


def pack_weights(weights: np.ndarray, tiling: CarryTreeTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    tile = tiling.tile
    blocks = tiling.output_blocks(weight_words(weights, tiling.specification))
    rows = pair_words(blocks.reshape(len(blocks), tile.block, -1))
    if tiling.padded:
        rows = np.concatenate([rows, np.bitwise_count(blocks).sum(-1).astype(np.uint32)], axis=-1)
    rows = rows.reshape(len(blocks), tile.vectors, tile.lanes, -1)
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))


def build(tiling: CarryTreeTiling) -> PrimFunc:
    """The kernel over ``convolution_parameters``, see ``binary_conv2d.build``."""
    return gathered_conv2d.build(tiling, tiling.tile.lanes, PairedPixel, dot_products)


def dot_products(tiling: CarryTreeTiling, weights: Buffer, block: Index, pixels: list[PairedPixel]) -> list[list[Expr]]:
    """The dot products of one block with every pixel, int32."""
    align_stack()
    return TreeBlock(tiling, weights, block, pixels).dot_products()


def align_stack() -> None:
    """No instruction, but one that lets LLVM align the stack for the vectors that it has to spill.

    Without a use of the frame's address it gives the frame pointer away before it knows that it needs one for that, and
    spilled registers of 64 bytes lie across two cache lines: 2 to 7% on x86-64-v4.
    """
    address = T.call_llvm_intrin("handle", "llvm.frameaddress.p0", T.int32(0))
    T.evaluate(T.call_llvm_intrin("void", "llvm.fake.use", address))
