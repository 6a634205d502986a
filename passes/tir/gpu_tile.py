"""How the outputs of a float loop nest, and the terms of their sums, are shared out to a GPU's threads.

Sizes follow from the layer alone, since one bundle serves GPUs of one architecture but many sizes (sm_87: 4 to 16
multiprocessors). What is wanted is enough threads for the larger ones; beyond that, outputs of one thread that share operands
save loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

# An H200 has 132 multiprocessors of 2048 threads, an AGX Orin 16 of 1536; 8 warps on each processor hide most of the latency.
_THREADS = 32768
# A thread that shares a sum adds at least this many terms, so that the tree is not most of the work.
_TERMS = 4
# Neighbouring outputs that neighbouring threads read for: 8 floats are the 32 bytes that memory moves at least.
_SECTOR = 8
# Threads of a block that shares sums: its barriers wait for all of them.
_SHARING = 512
# Threads of a block otherwise, by how many threads there are: small blocks reach more multiprocessors.
_BLOCKS = ((262144, 256), (16384, 128), (0, 64))


@dataclass(frozen=True)
class Tile:
    """The share of one thread, and of one block.

    Attributes:
        rows: outputs of a thread along the axis before the last one.
        columns: along the last one: neighbours in memory.
        groups: threads of a block that have outputs of their own.
        parts: threads that share the sum of each output; a power of two.
        parts_first: neighbouring threads share a sum, since its terms are neighbours in memory; else they have neighbouring
            outputs.
    """

    rows: int
    columns: int
    groups: int
    parts: int = 1
    parts_first: bool = False

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.groups * self.parts


def select_tile(extents: tuple[int, ...], terms: int, splits: bool, shares: bool, parts_first: bool) -> Tile:
    """A tile for a nest.

    Args:
        extents: of the outputs' axes, the last one contiguous in memory; () for one output.
        terms: of each output's sum, 1 if there is none.
        splits: whether threads may share a sum.
        shares: whether outputs of neighbouring rows read the same operands, as in products of matrices.
        parts_first: see ``Tile``.
    """
    outputs, axis = prod(extents), row_axis(extents)
    last, before = extents[-1] if extents else 1, 1 if axis is None else extents[axis]
    for rows, columns in ((4, 4), (1, 4), (1, 2), (1, 1)):
        if before % rows or last % columns or (rows > 1 and not shares) or (columns > 1 and parts_first and not shares):
            continue
        least = 1 if parts_first else ceil(_SECTOR / columns)
        groups = outputs // (rows * columns)
        most = min(terms // _TERMS, _SHARING // least) if splits else 1
        parts = 1
        while 2 * parts <= most and groups * parts < _THREADS:
            parts *= 2
        if groups * parts >= _THREADS or (rows, columns) == (1, 1):
            return _tile(rows, columns, groups, parts, least, parts_first)
    raise AssertionError("the last candidate always fits")


def row_axis(extents: tuple[int, ...]) -> int | None:
    """The axis that a tile's rows lie along: the last one before the last that has more than one point."""
    return next((axis for axis in reversed(range(len(extents) - 1)) if extents[axis] > 1), None)


def single_tile(groups: int, rows: int = 1, columns: int = 1) -> Tile:
    """Every thread computes all of its outputs alone."""
    return Tile(rows, columns, next(threads for bound, threads in _BLOCKS if groups >= bound))


def _tile(rows: int, columns: int, groups: int, parts: int, least: int, parts_first: bool) -> Tile:
    if parts == 1:
        return single_tile(groups, rows, columns)
    together = min(max(128 // parts, least), groups)
    return Tile(rows, columns, together, parts, parts_first)
