"""How many products of a dot product are not 0: those of taps inside the image and, if ternary, of nonzero activations.

They are the same for all output channels of a group, so that they are counted once for a chunk of them.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.tiling import Tiling
from bnn_deploy.targets.kernels.operands import Load
from bnn_deploy.targets.kernels.vector import INTEGER, Index, constant, let, loop, when


def taps_inside(first: Index, kernel: int, size: int, pad_before: int, pad_after: int) -> Index:
    """How many of ``kernel`` neighbouring positions from ``first`` (which may be negative) lie in ``0 .. size - 1``."""
    if pad_before == 0 and pad_after == 0:
        return kernel
    return T.max(T.min(first + kernel, size) - T.max(first, 0), 0)


def emit_valid_products(
    tiling: Tiling, load: Load, n: Index, row: Index, column: Index, group: Index, valid: Buffer
) -> None:
    """Set ``valid[p]`` (int32) for every pixel of the tile that begins at output ``row``, ``column`` of image ``n``."""
    layer = tiling.specification
    top, left, bottom, right = layer.pads
    (kernel_rows, kernel_columns), (row_step, column_step) = layer.kernel_shape, layer.strides
    first_row = row * row_step - top

    def first_column(p: Index) -> Index:
        return (column + p) * column_step - left

    if not layer.ternary:
        rows_inside = taps_inside(first_row, kernel_rows, tiling.height, top, bottom)
        with loop("p", tiling.tile.pixels, "unroll") as p:
            columns_inside = taps_inside(first_column(p), kernel_columns, tiling.width, left, right)
            count = rows_inside * columns_inside * layer.group_channels
            T.buffer_store(valid, constant(count, INTEGER) if isinstance(count, int) else count, [p])
        return

    def inside(position: Index, size: int, *pads: int) -> Expr | bool:
        return T.And(position >= 0, position < size) if any(pads) else True

    with loop("p", tiling.tile.pixels, "unroll") as p:
        T.buffer_store(valid, constant(0, INTEGER), [p])
    with loop("kernel_row", kernel_rows) as kernel_row:
        image_row = let("image_row", first_row + kernel_row)
        with (
            when(inside(image_row, tiling.height, top, bottom)),
            loop("kernel_column", kernel_columns) as kernel_column,
            loop("p", tiling.tile.pixels, "unroll") as p,
        ):
            image_column = let("image_column", first_column(p) + kernel_column)
            with when(inside(image_column, tiling.width, left, right)), loop("k", tiling.group_words) as word:
                nonzero, _ = load(n, image_row, image_column, group, word)
                T.buffer_store(valid, valid[p] + T.Cast(INTEGER, T.popcount(nonzero)), [p])
