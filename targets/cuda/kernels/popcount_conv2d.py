"""``binary_conv2d`` with ``__popc``: an implicit GEMM whose lanes are output channels, for layers that tensor cores do not compute.

A warp computes 32 output channels of some pixels. The words of a block's pixels are copied into shared memory tap by tap, 0 where
a tap lies in the padding, and are read by all lanes of a warp alike; every lane has weights of its own.

``__popc`` is slow: 16 lanes per clock and SM against 64 for LOP3 (32 and 128 on sm_53, sm_61 and sm_62). So two words are counted
at once: with ``s`` the word that is not counted yet and ``a``, ``b`` differing bits, a full adder makes of the three
``a ^ b ^ s``, which stays, and a carry, whose bits count twice. As any function of three words is one LOP3::

    x = s ^ activations_0 ^ weights_0;  t = x ^ activations_1 ^ weights_1;  count += popc(s ^ (x & ~(s ^ t)));  s = t

is 3 LOP3, 1 POPC and 1 addition for two words; counting every word is 2, 2 and 2. POPC and LOP3 then take about as long, and
more adders would save POPC at the cost of LOP3. Differing bits of three-valued activations are a LOP3 of their own: 4, 1 and 1.
"""

from __future__ import annotations

from functools import partial

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.device_functions import ballot, barrier
from bnn_deploy.targets.cuda.kernels import grouped_conv2d
from bnn_deploy.targets.cuda.kernels.index_range import require_int32_indices
from bnn_deploy.targets.cuda.kernels.popcount_tile import PixelTile
from bnn_deploy.targets.cuda.kernels.popcount_tiling import LANES, STEP, PopcountTiling
from bnn_deploy.targets.cuda.kernels.popcount_weights import WeightLayout, pack_weights
from bnn_deploy.targets.cuda.kernels.result import Result
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.operands import differing_bits
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    INTEGER,
    WORD,
    Index,
    constant,
    finished,
    lanes_at,
    let,
    loop,
    primitive_function,
    shuffled,
    when,
)
from bnn_deploy.targets.kernels.words import WORD_BITS

# Channels of a group from which on a warp for them is worth its idle lanes; below, a lane computes what it likes.
_FEWEST_CHANNELS = 16


def kernel(specification: ConvolutionSpecification, gpu: Gpu) -> Kernel:
    """The kernel of any layer, on any GPU."""
    if not _is_tiled(specification):
        return grouped_conv2d.kernel(specification)
    layout = WeightLayout(PopcountTiling(specification))
    return Kernel(
        f"{specification.values}_conv2d_{layout.tiling.name}",
        "binary",
        specification,
        partial(build, layout),
        partial(pack_weights, layout=layout),
        takes_epilogue=specification.group == 1,
        packs_signs=specification.group == 1 and specification.out_channels % WORD_BITS == 0,
    )


def _is_tiled(layer: ConvolutionSpecification) -> bool:
    return not layer.tap_scaled and (layer.group == 1 or layer.group_outputs >= _FEWEST_CHANNELS)


def build(layout: WeightLayout) -> PrimFunc:
    """The kernel over ``convolution_parameters``: weights uint32 as in ``popcount_weights``.

    Raises:
        CompileError: a tensor of it is too large for int32.
    """
    tiling = layout.tiling
    layer = tiling.specification
    require_int32_indices("A binary layer", layer.input_shape, (layout.size,), layer.image_output_shape)
    blocks = tiling.pixel_blocks * tiling.group_blocks * layer.group
    with primitive_function(**convolution_parameters(layer, (layout.size,))) as (builder, (x, weights, *others)):
        result = Result(layer, others)
        with (
            T.launch_thread("blockIdx.x", blocks) as block,
            T.launch_thread("threadIdx.x", LANES * tiling.warps) as thread,
        ):
            _Block(layout, block, thread).emit(x, weights, result)
    return finished(builder)


class _Block:
    """The statements of a block."""

    def __init__(self, layout: WeightLayout, block: Expr, thread: Expr) -> None:
        self.layout, self.tiling, self.layer = layout, layout.tiling, layout.tiling.specification
        tiling, layer = self.tiling, self.layer
        channel_blocks = tiling.group_blocks * layer.group
        self.warp, self.lane = let("warp", thread // LANES), let("lane", thread % LANES)
        self.block_pixel = let("block_pixel", block // channel_blocks * tiling.block_pixels)
        self.own_pixel = let("own_pixel", self.warp % tiling.pixel_warps * tiling.pixels)
        block_tile = block % channel_blocks
        self.group = let("group", block_tile // tiling.group_blocks)
        self.tile = let("tile", block_tile * tiling.channel_warps + self.warp // tiling.pixel_warps)
        # A group's last tile may have lanes without a channel; they compute the last one, and store nothing.
        channel = let("channel", (self.tile - self.group * tiling.group_tiles) * LANES + self.lane)
        self.has_channel = channel < layer.group_outputs if layer.group_outputs % LANES else True
        last = layer.group_outputs - 1
        self.output = let("output", self.group * layer.group_outputs + T.min(channel, last))
        # Of each pixel: bits that count twice, and a word of bits that are not counted yet.
        self.count = T.alloc_buffer((tiling.pixels,), INTEGER, scope="local")
        self.rest = T.alloc_buffer((tiling.pixels,), WORD, scope="local")
        # Of each pixel: what is stored. And a bit of this lane, and the bits of all.
        self.values = T.alloc_buffer((tiling.pixels,), FLOAT, scope="local")
        self.bits = T.alloc_buffer((2,), WORD, scope="local")
        # The weights of the next step, and where those of the step after it are, in pieces of a step. Behind a load, which is
        # no common subexpression, it stays visible that their index is aligned.
        self.place = T.alloc_buffer((1,), INTEGER, scope="local")
        self.ahead = T.alloc_buffer((STEP,), WORD, scope="local")

    def emit(self, x: Buffer, weights: Buffer, result: Result) -> None:
        """From X to what the layer stores."""
        tiling = self.tiling
        T.buffer_store(self.place, self.tile * (self.layout.steps * LANES) + self.lane, [0])
        self._load_ahead(weights)
        place = (self.group, self.warp, self.lane)
        pixels = PixelTile(self.layout, x, weights, self.block_pixel, place)
        with loop("p", tiling.pixels, "unroll") as p:
            T.buffer_store(self.count, constant(0, INTEGER), [p])
            T.buffer_store(self.rest, constant(0, WORD), [p])
        with loop("chunk", tiling.chunks) as chunk:
            if tiling.chunks > 1:
                barrier()
            pixels.fill(chunk)
            barrier()
            # Warps beyond the last pixel have nothing to count.
            with when(self.block_pixel + self.own_pixel < tiling.output_pixels):
                self._count_chunk(pixels, weights)
        pixels.share()
        self._store(pixels, result)

    def _load_ahead(self, weights: Buffer) -> None:
        T.buffer_store(self.ahead, weights[lanes_at(self.place[0] * STEP, STEP)], [lanes_at(0, STEP)])
        T.buffer_store(self.place, self.place[0] + LANES, [0])

    def _count_chunk(self, pixels: PixelTile, weights: Buffer) -> None:
        tiling = self.tiling
        steps = tiling.chunk // STEP
        # Words that a single chunk has too much are not counted; several chunks end with zeros.
        rest = tiling.words % STEP if tiling.chunks == 1 else 0

        def count_step(step: Index, words: int) -> None:
            own = _parts(let("own", self.ahead[lanes_at(0, STEP)]))
            self._load_ahead(weights)
            with loop("p", tiling.pixels, "unroll") as p:
                planes = [_parts(let("seen", seen)) for seen in pixels.words(self.own_pixel + p, step * STEP, STEP)]
                for first in range(0, words, 2):
                    pair = range(first, min(first + 2, words))
                    self._count(p, [tuple(plane[i] for plane in planes) for i in pair], [own[i] for i in pair])

        with loop("step", steps - (rest > 0)) as step:
            count_step(step, STEP)
        if rest:
            count_step(steps - 1, rest)

    def _count(self, p: Expr, activations: list[tuple[Expr, ...]], weights: list[Expr]) -> None:
        """Add the differing bits of one word or two to the sums of pixel ``p``."""
        rest = let("rest", self.rest[p])
        if len(activations) == 1:
            differing = let("differing", differing_bits(activations[0], weights[0], 1))
            total, carry = rest ^ differing, rest & differing
        elif self.layer.ternary:
            a, b = (let("differing", differing_bits(*word, 1)) for word in zip(activations, weights, strict=True))
            total, carry = rest ^ a ^ b, (a & b) | (rest & (a | b))
        else:
            # Written so that NVRTC makes one LOP3 of each line; see above.
            x = let("x", rest ^ activations[0][0] ^ weights[0])
            total = let("t", x ^ activations[1][0] ^ weights[1])
            carry = rest ^ (x & tirx.bitwise_not(rest ^ total))
        T.buffer_store(self.count, self.count[p] + T.Cast(INTEGER, T.popcount(carry)), [p])
        T.buffer_store(self.rest, total, [p])

    def _store(self, pixels: PixelTile, result: Result) -> None:
        tiling = self.tiling
        with loop("p", tiling.pixels, "unroll") as p:
            pixel = self.block_pixel + self.own_pixel + p
            base = pixels.base(self.own_pixel + p, self.tile * LANES + self.lane)
            differing = 2 * self.count[p] + T.Cast(INTEGER, T.popcount(self.rest[p]))
            sums = result.scaled([let("dot", base - 2 * differing)], self.output)
            # Beyond the last pixel, the last one is computed, and not stored.
            (value,) = result.computed(sums, T.min(pixel, tiling.output_pixels - 1), self.output)
            T.buffer_store(self.values, value, [p])
        # Apart, so that what all pixels read is loaded once.
        with loop("p", tiling.pixels, "unroll") as p:
            pixel = self.block_pixel + self.own_pixel + p
            with when(pixel < tiling.output_pixels), when(self.has_channel):
                result.store([self.values[p]], pixel, self.output)
        for plane in range(result.planes):
            with loop("p", tiling.pixels, "unroll") as p:
                T.buffer_store(self.bits, T.Cast(WORD, result.bit(plane, self.values[p], self.output)), [0])
                ballot((self.bits, 1), (self.bits, 0))
                pixel = self.block_pixel + self.own_pixel + p
                with when(self.lane == 0), when(pixel < tiling.output_pixels):
                    result.store_word(plane, self.bits[1], pixel, self.tile)


def _parts(vector: Expr) -> list[Expr]:
    return [shuffled([vector], [lane]) for lane in range(STEP)]
