"""The loops around the register tiles of a binary convolution, which are those of all kernels of processors.

A task computes a chunk of output-channel blocks for one row of output pixels. The last tile of a row, and the last block of a
group, overlap their neighbour instead of being narrower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.binary.tiling import Tiling
from bnn_deploy.targets.kernels.vector import Index, let, loop
from bnn_deploy.targets.kernels.words import ceil_divide


@dataclass(frozen=True)
class Task:
    """What one task computes.

    Attributes:
        chunk: which chunk of blocks.
        n, row: image and output row, counted over the whole layer.
        result_pixel: the same, counted within what this call writes.
    """

    chunk: Index
    n: Index
    row: Index
    result_pixel: tuple[Index, Index]


@contextmanager
def tasks(tiling: Tiling, origin: tuple[Index, Index]) -> Iterator[Task]:
    """The parallel loop over tasks; ``origin``: image and output row at which this call begins."""
    rows = tiling.rows
    pixel_rows = tiling.batch * rows
    chunks = tiling.weights_shape[0] // tiling.chunk_blocks
    with loop("task", chunks * pixel_rows, "parallel") as task:
        chunk = let("chunk", task // pixel_rows)
        pixel = (let("result_image", task % pixel_rows // rows), let("result_row", task % rows))
        yield Task(chunk, let("n", origin[0] + pixel[0]), let("row", origin[1] + pixel[1]), pixel)


@contextmanager
def tile_columns(tiling: Tiling) -> Iterator[Index]:
    """The loop over the tiles of a row, by their first column."""
    pixels = tiling.tile.pixels
    with loop("tile", ceil_divide(tiling.columns, pixels)) as index:
        yield let("column", T.min(index * pixels, tiling.columns - pixels))


@contextmanager
def weight_blocks(tiling: Tiling, chunk: Index) -> Iterator[Index]:
    """The loop over the blocks of output channels of a chunk."""
    with loop("block", tiling.chunk_blocks) as part:
        yield let("weight_block", chunk * tiling.chunk_blocks + part)


def first_output(tiling: Tiling, block: Index, group: Index) -> Index:
    """The first output channel of a block."""
    outputs, of_group = tiling.tile.block, tiling.specification.group_outputs
    first = T.min(block % tiling.group_blocks * outputs, of_group - outputs)
    return let("output", group * of_group + first)
