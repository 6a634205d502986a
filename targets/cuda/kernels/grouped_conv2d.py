"""``binary_conv2d`` with ``__popc``, one output of one thread: depthwise layers, groups of few outputs, and scales per tap.

Threads of a warp compute neighbouring channels, so that they store neighbouring floats, read neighbouring weights, and the words
of X that they share come with one load. What they compute is small: 1x7 taps of one or two channels in depthwise layers.
"""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

from bnn_deploy.targets.cuda.kernels.index_range import require_int32_indices
from bnn_deploy.targets.cuda.kernels.result import Result
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.operands import differing_bits, group_word_loader
from bnn_deploy.targets.kernels.parameters import convolution_parameters
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.kernels.vector import (
    FLOAT,
    INTEGER,
    constant,
    finished,
    fused_multiply_add,
    let,
    loop,
    primitive_function,
    view,
    when,
)
from bnn_deploy.targets.kernels.weights import weight_words
from bnn_deploy.targets.kernels.words import ceil_divide, word_count

_THREADS = 128
# Taps and words of a thread that are worth their code without a loop.
_LARGEST_UNROLLED = 9


def kernel(specification: ConvolutionSpecification) -> Kernel:
    """The kernel of any layer without an epilogue."""
    tap = "_tap" if specification.tap_scaled else ""
    build_kernel, pack = partial(build, specification), partial(pack_weights, specification=specification)
    name = f"{specification.values}_grouped_conv2d{tap}_popc_{_THREADS}"
    return Kernel(name, "binary", specification, build_kernel, pack)


def weights_shape(specification: ConvolutionSpecification) -> tuple[int, int, int]:
    """Layout of the packed weights, uint32: (taps, words of a tap, O)."""
    return (specification.taps, word_count(specification.group_channels), specification.out_channels)


def pack_weights(weights: np.ndarray, specification: ConvolutionSpecification) -> np.ndarray:
    """ONNX weights, uint8 (O, ceil(K / 8)), as uint32 ``weights_shape``."""
    return np.ascontiguousarray(weight_words(weights, specification).transpose(1, 2, 0))


def build(layer: ConvolutionSpecification) -> PrimFunc:
    """The kernel ``(X, weights, scale, shift, Y)``, with a scale per tap in the order of the taps as on CPUs:
    ``y = fma(dot_T, scale_T, … fma(dot_1, scale_1, 0)) + shift``.

    Raises:
        CompileError: a tensor of it is too large for int32.
    """
    require_int32_indices("A binary layer", layer.input_shape, weights_shape(layer), layer.image_output_shape)
    outputs, size = layer.out_channels, prod(layer.image_output_shape)
    parameters = convolution_parameters(layer, weights_shape(layer))
    with primitive_function(**parameters) as (builder, (x, weights, *others)):
        result = Result(layer, others)
        with (
            T.launch_thread("blockIdx.x", ceil_divide(size, _THREADS)) as block,
            T.launch_thread("threadIdx.x", _THREADS) as thread,
        ):
            index = let("index", block * _THREADS + thread)
            sums = _Sums(layer, x, weights, result.scale)
            with when(index < size if size % _THREADS else True):
                pixel, output = let("pixel", index // outputs), let("output", index % outputs)
                sums.emit(pixel, output)
                if layer.tap_scaled:
                    value = let("value", sums.scaled[0] + result.shift[output])
                else:
                    (value,) = result.scaled([sums.dot[0]], output)
                result.store([value], pixel, output)
    return finished(builder)


class _Sums:
    """Of one output: the dot product of the taps so far, and their scaled sum if every tap has its scale."""

    def __init__(self, layer: ConvolutionSpecification, x: Buffer, weights: Buffer, scale: Buffer) -> None:
        self.layer, self.weights, self.scale = layer, weights, scale
        self._load = group_word_loader(view("image", x, layer.plane_shape), layer)
        self.dot = T.alloc_buffer((1,), INTEGER, scope="local")
        self.scaled = T.alloc_buffer((1,), FLOAT, scope="local")

    def emit(self, pixel: Expr, output: Expr) -> None:
        """Go over all taps."""
        layer = self.layer
        _, rows, columns, _ = layer.image_output_shape
        group = let("group", output // layer.group_outputs)
        n = let("n", pixel // (rows * columns))
        first_row = let("first_row", pixel // columns % rows * layer.strides[0] - layer.pads[0])
        first_column = let("first_column", pixel % columns * layer.strides[1] - layer.pads[1])
        T.buffer_store(self.scaled, constant(0, FLOAT), [0])
        T.buffer_store(self.dot, constant(0, INTEGER), [0])
        kind = "unroll" if layer.taps * word_count(layer.group_channels) <= _LARGEST_UNROLLED else "serial"
        with (
            loop("kernel_row", layer.kernel_shape[0], kind) as i,
            loop("kernel_column", layer.kernel_shape[1], kind) as j,
        ):
            tap = let("tap", i * layer.kernel_shape[1] + j)
            row, column = let("row", first_row + i), let("column", first_column + j)
            inside: Expr | bool = True
            if any(layer.pads):
                inside = T.And(T.And(row >= 0, row < layer.height), T.And(column >= 0, column < layer.width))
            if layer.tap_scaled:
                T.buffer_store(self.dot, constant(0, INTEGER), [0])
            with when(inside), loop("word", word_count(layer.group_channels), kind) as word:
                self._add(self._load(n, row, column, group, word), self.weights[tap, word, output], word)
            if layer.tap_scaled:
                dot = T.Cast(FLOAT, self.dot[0])
                product = fused_multiply_add(dot, self.scale[tap, output], self.scaled[0], 1)
                T.buffer_store(self.scaled, product, [0])

    def _add(self, words: tuple[Expr, ...], weights: Expr, word: Expr) -> None:
        layer = self.layer
        if layer.ternary:
            words = tuple(let("plane", plane) for plane in words)
            products = T.Cast(INTEGER, T.popcount(words[0]))
        else:
            products = T.min(layer.group_channels - word * 32, 32)
        differing = T.Cast(INTEGER, T.popcount(differing_bits(words, weights, 1)))
        T.buffer_store(self.dot, self.dot[0] + (products - 2 * differing), [0])
