"""``binary_conv2d`` by carry-save trees: lanes are output channels, words of K are added bit by bit before they are counted.

For a tile of pixels the words of all taps are gathered and paired (see ``carry_tree``); every block of channels then
reads nothing but those, each word in all lanes, and its weights.
"""

from __future__ import annotations

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels import gathered_conv2d
from bnn_deploy.targets.kernels.carry_tree import pair_words
from bnn_deploy.targets.kernels.carry_tree_block import PairedPixel, TreeBlock
from bnn_deploy.targets.kernels.carry_tree_tiling import CarryTreeTiling
from bnn_deploy.targets.kernels.vector import Index
from bnn_deploy.targets.kernels.weights import weight_words


def pack_weights(weights: np.ndarray, tiling: CarryTreeTiling) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``tiling.weights_shape``."""
    tile = tiling.tile
    blocks = gathered_conv2d.output_blocks(weight_words(weights, tiling.specification), tiling, tile.block)
    rows = pair_words(blocks.reshape(len(blocks), tile.block, -1))
    if tiling.padded:
        rows = np.concatenate([rows, np.bitwise_count(blocks).sum(-1).astype(np.uint32)], axis=-1)
    rows = rows.reshape(len(blocks), tile.vectors, tile.lanes, -1)
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))


def build(tiling: CarryTreeTiling) -> PrimFunc:
    """The kernel ``(X, weights, scale, shift, Y[, block])``, see ``binary_conv2d.build``."""
    return gathered_conv2d.build(tiling, tiling.tile.block, tiling.tile.lanes, PairedPixel, dot_products)


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
