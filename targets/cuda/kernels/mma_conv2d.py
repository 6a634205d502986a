"""``conv2d_mma``: binary convolutions and linear layers on b1 tensor cores, for sm_75 and newer.

An implicit GEMM: a block of threads computes the tile that ``mma_tiling`` chose, and goes over the words of the windows chunk by
chunk. While the warps multiply one chunk, the next ones are on their way from global to shared memory. What the tensor cores
count becomes dot products as ``mma_weights`` says, and these what ``mma_store`` stores.
"""

from __future__ import annotations

from functools import partial
from math import prod

from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.architectures import architecture
from bnn_deploy.targets.cuda.device_functions import barrier, commit_copies, mma, wait_for_copies
from bnn_deploy.targets.cuda.kernels.index_range import require_int32_indices
from bnn_deploy.targets.cuda.kernels.mma_counts import ActivationCounts
from bnn_deploy.targets.cuda.kernels.mma_operands import (
    LARGEST_KERNEL,
    ActivationTile,
    WeightTile,
    memory,
    warp_position,
)
from bnn_deploy.targets.cuda.kernels.mma_store import TilePlace, TileStore
from bnn_deploy.targets.cuda.kernels.mma_tiling import LANE_WORDS, STEPS, MmaTiling, choose_tiling
from bnn_deploy.targets.cuda.kernels.mma_weights import array_words, pack_weights
from bnn_deploy.targets.cuda.kernels.result import Result
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import INTEGER, WORD, finished, let, loop, primitive_function, view, when
from bnn_deploy.targets.kernels.words import WORD_BITS


def kernel(specification: ConvolutionSpecification, gpu: Gpu) -> Kernel | None:
    """The kernel in the tile that suits the layer; None for groups and scales per tap, or without b1 tensor cores."""
    return tiled_kernel(choose_tiling(specification, gpu)) if fits(specification, gpu) else None


def fits(specification: ConvolutionSpecification, gpu: Gpu) -> bool:
    """Whether the kernel computes the layer on the GPU."""
    return (
        architecture(gpu.sm).dot_product != "popc"
        and specification.group == 1
        and not specification.tap_scaled
        and sum(specification.kernel_shape) <= LARGEST_KERNEL
    )


def tiled_kernel(tiling: MmaTiling) -> Kernel:
    """The kernel with a given tile."""
    layer = tiling.specification
    return Kernel(
        f"{layer.values}_conv2d_mma_{tiling.form}_{tiling.tile.name}",
        "binary",
        layer,
        partial(build, tiling),
        partial(pack_weights, tiling=tiling),
        takes_epilogue=True,
        packs_signs=layer.out_channels % WORD_BITS == 0,
    )


def build(tiling: MmaTiling) -> PrimFunc:
    """The kernel over ``convolution_parameters``: weights uint32 (``array_words``,).

    Raises:
        CompileError: a tensor of the layer has more elements than indices count.
    """
    layer, tile = tiling.specification, tiling.tile
    parameters = convolution_parameters(layer, (array_words(tiling),))
    shapes = (shape for shape, _ in parameters.values())
    require_int32_indices(f"A binary layer of outputs {layer.output_shape}", *shapes)
    with primitive_function(**parameters) as (builder, (image, weights, *results)):
        x = view("words", image, (prod(layer.input_shape),))
        result = Result(layer, results)
        with (
            T.launch_thread("blockIdx.x", tiling.blocks) as block,
            T.launch_thread("threadIdx.x", tile.threads) as thread,
        ):
            # Blocks side by side read the same activations, of which there are more than weights.
            pixel_tile = let("pixel_tile", block // tiling.channel_tiles)
            channel_tile = let("channel_tile", block % tiling.channel_tiles)
            position = warp_position(tiling, thread)
            activations = ActivationTile(tiling, x, thread, pixel_tile)
            counts = ActivationCounts(tiling, activations.shared, position)
            sums = _multiply(tiling, (activations, WeightTile(tiling, weights, thread, channel_tile)), counts, position)
            counts.exchange()
            place = TilePlace(pixel_tile, channel_tile, *position)
            TileStore(tiling, (sums, counts), weights, result, place).emit()
    return finished(builder)


def _multiply(
    tiling: MmaTiling,
    operands: tuple[ActivationTile, WeightTile],
    counts: ActivationCounts,
    position: tuple[Expr, Expr, Expr],
) -> Buffer:
    """What the tensor cores count: int32, four for each subtile of the warp, pixel subtiles of the first channels first."""
    tile, stages, chunks = tiling.tile, tiling.stages, tiling.chunks
    activations, weights = operands
    pixels, channels = tile.pixel_subtiles, tile.channel_subtiles
    sums = memory("sums", pixels * channels * 4, INTEGER, "local")
    with loop("sum", pixels * channels * 4, "unroll") as index:
        T.buffer_store(sums, T.int32(0), [index])
    rows = memory("weight_fragments", channels * STEPS * LANE_WORDS, WORD, "local")
    inverse = memory("inverse_fragments", channels * STEPS * LANE_WORDS, WORD, "local") if tiling.planes == 2 else rows
    column = memory("activation_fragment", tiling.planes * LANE_WORDS, WORD, "local")
    for chunk in range(stages - 1):
        if chunk < chunks:
            activations.copy(chunk, chunk)
            weights.copy(chunk, chunk)
        commit_copies()
    with loop("chunk", chunks) as chunk:
        stage = let("stage", chunk % stages)
        wait_for_copies(stages - 2)
        # Now this chunk can be read, and nobody reads the one before it any more.
        barrier()
        ahead = chunk + (stages - 1)
        if chunks >= stages:
            with when(ahead < chunks):
                free = let("free_stage", ahead % stages)
                activations.copy(ahead, free)
                weights.copy(ahead, free)
        commit_copies()
        weights.load(rows, stage, position[1], position[2])
        if tiling.planes == 2:
            with loop("word", channels * STEPS * LANE_WORDS, "unroll") as word:
                T.buffer_store(inverse, ~rows[word], [word])
        with loop("pixel_subtile", pixels, "unroll") as pixel_subtile:
            activations.load(column, stage, pixel_subtile, position[0], position[2])
            counts.add(column, pixel_subtile)
            if tiling.planes == 2:
                # The planes of nonzero and positive values become those of negative and positive ones.
                with loop("word", LANE_WORDS, "unroll") as word:
                    T.buffer_store(column, column[word] ^ column[word + LANE_WORDS], [word])
            with loop("step", STEPS, "unroll") as step, loop("channel_subtile", channels, "unroll") as channel_subtile:
                sums_at = (sums, (channel_subtile * pixels + pixel_subtile) * 4)
                fragment = (channel_subtile * STEPS + step) * LANE_WORDS
                if tiling.planes == 2:
                    mma(tiling.form, sums_at, (inverse, fragment), (column, step * 2))
                mma(tiling.form, sums_at, (rows, fragment), (column, (tiling.planes - 1) * LANE_WORDS + step * 2))
    return sums
