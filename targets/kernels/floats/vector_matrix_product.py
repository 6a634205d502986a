"""Products of one float vector with a matrix, with an epilogue: heads of networks on one image."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.floats.frame import Epilogue, kernel_over, whole, whole_view
from bnn_deploy.targets.kernels.vector import FLOAT, Index, finished, fused_multiply_add, lanes_at, let, loop, spread

# Rows of the matrix that are read side by side: as many streams as prefetchers follow.
_STREAMS = 8


def build_vector_matrix_product(
    inputs: int,
    outputs: int,
    float_lanes: int,
    parameters: list[Buffer],
    x: Buffer,
    weights: Buffer,
    y: Buffer,
    epilogue: Epilogue,
    parallel: bool,
) -> PrimFunc | None:
    """A kernel over ``parameters``, among them X (inputs,), weights (inputs, outputs) and Y (outputs,); None for odd shapes.

    It reads each weight once, in ``_STREAMS`` rows side by side from beginning to end: the memory is the limit. Sums stand in Y.
    """
    lanes = float_lanes
    while outputs % lanes:
        lanes //= 2
    if lanes == 1 or inputs % _STREAMS:
        return None
    vectors = outputs // lanes
    chunks = next(count for count in (8, 6, 5, 4, 3, 2, 1) if vectors % count == 0) if parallel else 1
    with kernel_over(parameters) as builder:
        row, matrix = whole_view("row", x, (inputs,)), whole_view("matrix", weights, (inputs, outputs))
        result = whole_view("result", y, (outputs,))
        with loop("chunk", whole(chunks), "parallel" if chunks > 1 else "serial", whole(0)) as chunk:
            start = let("start", chunk * (outputs // chunks))

            def add(base: Index, at: Index, value: Expr) -> None:
                for step in range(_STREAMS):
                    element = spread(row[base + step], lanes)
                    value = fused_multiply_add(element, matrix[base + step, at], value, lanes)
                T.buffer_store(result, value, [at])

            with loop("vector", whole(vectors // chunks), start=whole(0)) as vector:
                add(whole(0), lanes_at(start + vector * lanes, lanes), spread(T.FloatImm(FLOAT, 0), lanes))
            with loop("rows", whole(inputs // _STREAMS - 1), start=whole(0)) as rows:
                base = let("base", (rows + 1) * _STREAMS)
                with loop("vector", whole(vectors // chunks), start=whole(0)) as vector:
                    at = lanes_at(start + vector * lanes, lanes)
                    add(base, at, result[at])
            zero = whole(0)
            with (
                loop("vector", whole(vectors // chunks), start=whole(0)) as vector,
                T.vectorized(whole(0), whole(lanes)) as lane,
            ):
                channel = start + vector * lanes + lane
                T.buffer_store(result, epilogue((zero, zero, zero, channel), result[channel]), [channel])
    return finished(builder)
