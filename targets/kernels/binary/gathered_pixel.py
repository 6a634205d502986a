"""One output pixel whose words of all taps are copied side by side, so that neither taps nor padding concern what follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.gathered_tiling import GatheredTiling
from bnn_deploy.targets.kernels.binary.valid_products import taps_inside
from bnn_deploy.targets.kernels.vector import WORD, Index, constant, lanes_at, let, loop, when

AnyTiling = TypeVar("AnyTiling", bound=GatheredTiling)

# Vectors of a tap copied without a loop.
LARGEST_UNROLLED_COPY = 8


class GatheredPixel(Generic[AnyTiling]):
    """Emits where the taps of an output pixel lie, how many of them lie inside the image, and the copy of their words."""

    def __init__(self, tiling: AnyTiling, image: Buffer, n: Index, row: Index, column: Index, group: Index) -> None:
        layer = tiling.specification
        self.tiling, self.layer, self.image, self.n, self.group = tiling, layer, image, n, group
        self.first_row = let("first_row", row * layer.strides[0] - layer.pads[0])
        self.first_column = let("first_column", column * layer.strides[1] - layer.pads[1])
        top, left, bottom, right = layer.pads
        self.taps = taps_inside(self.first_row, layer.kernel_shape[0], tiling.height, top, bottom) * taps_inside(
            self.first_column, layer.kernel_shape[1], tiling.width, left, right
        )
        self.valid = let("valid", self.taps * layer.group_channels)

    def tap_inside(self, kernel_row: Index, kernel_column: Index) -> Expr | bool:
        """Whether a tap lies inside the image."""
        row, column = self.first_row + kernel_row, self.first_column + kernel_column
        if not any(self.layer.pads):
            return True
        return T.And(T.And(row >= 0, row < self.tiling.height), T.And(column >= 0, column < self.tiling.width))

    def image_words(self, kernel_row: Index, kernel_column: Index, word: Index, count: int) -> Expr:
        """``count`` neighbouring words of a tap."""
        first = self.group * self.tiling.group_words + word
        row, column = self.first_row + kernel_row, self.first_column + kernel_column
        return self.image[self.n, row, column, lanes_at(first, count)]

    def gather(self, target: Buffer, widest: int, change: Callable[[Expr, int], Expr] | None = None) -> None:
        """Copy all taps to ``target``, ``widest`` words at once or as many as divide a tap; 0 for taps in the padding.

        ``change`` makes of some neighbouring words (and their number) what is stored; 0 must stay 0.
        """
        words = self.tiling.group_words
        size = next(size for size in (16, 8, 4, 2, 1) if size <= widest and words % size == 0)
        kind = "serial" if self.layer.taps > 1 else "unroll"
        rows, columns = self.layer.kernel_shape
        with loop("kernel_row", rows, kind) as kernel_row, loop("kernel_column", columns, kind) as kernel_column:
            first = let("first", (kernel_row * columns + kernel_column) * words)
            inside = self.tap_inside(kernel_row, kernel_column)

            def copy(present: bool) -> None:
                with loop(
                    "word", words // size, "unroll" if words // size <= LARGEST_UNROLLED_COPY else "serial"
                ) as word:
                    value = constant(0, WORD, size)
                    if present:
                        value = self.image_words(kernel_row, kernel_column, word * size, size)
                        value = change(value, size) if change else value
                    T.buffer_store(target, value, [lanes_at(first + word * size, size)])

            with when(inside):
                copy(present=True)
            if inside is not True:
                with when(T.Not(inside)):
                    copy(present=False)
