"""Popcounts of the activations of each window, which the AND form needs besides what the tensor cores count.

Warps that share pixels of a block have the same activations in their registers: each counts its share of the subtiles. A lane
has other pixels of them than of the sums, so all exchange what they counted through shared memory.

POPC runs beside the tensor cores, at a quarter of the rate of other instructions.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from bnn_deploy.targets.cuda.device_functions import add_across_4, barrier
from bnn_deploy.targets.cuda.kernels.mma_operands import memory
from bnn_deploy.targets.cuda.kernels.mma_tiling import LANE_WORDS, MMA_PIXELS, MmaTiling
from bnn_deploy.targets.cuda.kernels.mma_weights import formula
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, Index, loop, when


class ActivationCounts:
    """Counts of a block's pixels; does nothing where they are not needed."""

    def __init__(self, tiling: MmaTiling, shared: Buffer, position: tuple[Expr, Expr, Expr]) -> None:
        """``shared``: memory for the exchange, used by nothing else any more by then."""
        self.tile, self.shared = tiling.tile, shared
        self.pixel_warp, self.channel_warp, self.lane = position
        self.needed = formula(tiling).beta != 0
        if self.needed:
            self.counts = memory("activation_counts", self.tile.pixel_subtiles, INTEGER, "local")
            with loop("count", self.tile.pixel_subtiles, "unroll") as index:
                T.buffer_store(self.counts, T.int32(0), [index])

    def add(self, fragment: Buffer, subtile: Expr) -> None:
        """Count what a warp has in its registers: of three-valued activations the plane of nonzero ones."""
        if not self.needed:
            return
        with when(self._is_own(subtile)):
            ones = [T.Cast(INTEGER, T.popcount(fragment[word])) for word in range(LANE_WORDS)]
            total = (ones[0] + ones[1]) + (ones[2] + ones[3])
            T.buffer_store(self.counts, self.counts[subtile] + total, [subtile])

    def exchange(self) -> None:
        """Sums over all words of a window, for all warps."""
        if not self.needed:
            return
        with loop("count", self.tile.pixel_subtiles, "unroll") as index:
            add_across_4((self.counts, index))
        # The last chunk may still be read.
        barrier()
        with loop("count", self.tile.pixel_subtiles, "unroll") as index:
            own, first = self._is_own(index), self.lane % 4 == 0
            with when(first if own is True else T.And(first, own)):
                place = self.pixel_warp * self.tile.warp_pixels + self.lane // 4 + index * MMA_PIXELS
                T.buffer_store(self.shared, T.Cast(WORD, self.counts[index]), [place])
        barrier()

    def count(self, pixel: Index) -> Expr:
        """Of a pixel of the block, int32."""
        return T.Cast(INTEGER, self.shared[pixel])

    def _is_own(self, subtile: Expr) -> Expr | bool:
        warps = self.tile.channel_warps
        return subtile % warps == self.channel_warp if warps > 1 else True
