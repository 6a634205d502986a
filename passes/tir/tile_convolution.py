"""Recognise a dense float convolution or matrix product with its epilogue, and give it a register tile.

Before::

    for n, h, w, o, i, j, c: t[…] = fma(if_then_else(inside, x[n, 2 * h + i - 1, 2 * w + j - 1, c], 0), f[i, j, c, o], t[…])
    for n, h, w, o: y[n, h, w, o] = prelu(t[n, h, w, o] + bias[o])
After::

    the kernel of ``targets.kernels.floats`` with y = prelu(sum + bias) computed on the tile; t is gone

Where: in ``schedule_float``, after padding and elementwise operators were inlined into each other.
Not handled: groups, dilation, other layouts; they are left to the general schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import Expr

from bnn_deploy.passes.tir.index_values import index_values
from bnn_deploy.passes.tir.rounded_products import fused_operands
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.floats.float_conv2d import FloatConvolution, build_convolution, select_tile
from bnn_deploy.targets.kernels.floats.frame import Epilogue
from bnn_deploy.targets.kernels.floats.vector_matrix_product import build_vector_matrix_product


@dataclass(frozen=True)
class _Match:
    layer: FloatConvolution
    x: tirx.Buffer
    weights: tirx.Buffer
    total: tirx.Buffer


def tile_convolution(function: tirx.PrimFunc, target: Target, parallel_elements: int) -> tirx.PrimFunc | None:
    """The tiled kernel with the same parameters; None when ``function`` is no dense convolution with an elementwise epilogue."""
    root = function.body.block
    nests = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    blocks = [block for block in map(_block, nests) if block is not None]
    if len(nests) > 2 or len(blocks) < len(nests):
        return None
    match = _matmul(blocks[0]) or _convolution(blocks[0])
    store = blocks[-1].body
    if match is None or not isinstance(store, tirx.BufferStore):
        return None
    y = store.buffer
    epilogue = _epilogue(blocks[1], match.total) if len(blocks) == 2 else lambda position, total: total
    if epilogue is None or not any(y.same_as(parameter) for parameter in function.params):
        return None
    layer, parameters = match.layer, list(function.params)
    parallel = layer.batch * layer.rows * layer.columns * layer.out_channels >= parallel_elements
    if (layer.batch * layer.rows * layer.columns, layer.kernel, layer.padding) == (1, (1, 1), (0, 0)):
        # A row of threads' weights is worth waking them for, however few sums it makes.
        parallel = layer.in_channels * layer.out_channels >= parallel_elements
        shape = (layer.in_channels, layer.out_channels, target.float_lanes)
        built = build_vector_matrix_product(*shape, parameters, match.x, match.weights, y, epilogue, parallel)
    else:
        tile = select_tile(layer, target.float_lanes)
        if tile is None:
            return None
        built = build_convolution(layer, tile, parameters, match.x, match.weights, y, epilogue, parallel)
    return None if built is None else built.with_attrs(function.attrs)


def _block(nest: tirx.Stmt) -> s_tir.SBlock | None:
    while isinstance(nest, tirx.For):
        nest = nest.body
    return nest.block if isinstance(nest, s_tir.SBlockRealize) else None


def _product(block: s_tir.SBlock, axes: int, reductions: int) -> tuple[tirx.Buffer, Expr, ir.TensorLoad] | None:
    """(total, x, weights) of ``total[axes] += x * weights`` that begins with 0, in float32."""
    kinds = [int(variable.iter_type) for variable in block.iter_vars]
    if kinds != [tirx.IterVar.DataPar] * axes + [tirx.IterVar.CommReduce] * reductions:
        return None
    store, initial = block.body, block.init
    if not isinstance(store, tirx.BufferStore) or not isinstance(initial, tirx.BufferStore):
        return None
    operands = fused_operands(store.value)
    if not _is_zero(initial.value) or str(store.buffer.dtype) != "float32" or operands is None:
        return None
    x, weights, before = operands
    if not _is_at(store.indices, block, axes) or not isinstance(weights, ir.TensorLoad):
        return None
    if not isinstance(before, ir.TensorLoad) or not before.source.same_as(store.buffer):
        return None
    return store.buffer, x, weights


def _matmul(block: s_tir.SBlock) -> _Match | None:
    found = _product(block, 2, 1)
    if found is None:
        return None
    total, x, weights = found
    row, output, inner = (variable.var for variable in block.iter_vars)
    if not isinstance(x, ir.TensorLoad) or not _are(x.indices, row, inner) or not _are(weights.indices, inner, output):
        return None
    rows, outputs, inputs = (int(variable.dom.extent) for variable in block.iter_vars)
    if _shape(x.source) != (rows, inputs) or _shape(weights.source) != (inputs, outputs):
        return None
    return _Match(FloatConvolution(1, 1, rows, inputs, 1, rows, outputs), x.source, weights.source, total)


def _convolution(block: s_tir.SBlock) -> _Match | None:
    found = _product(block, 4, 3)
    if found is None:
        return None
    total, element, weights = found
    n, row, column, output, kernel_row, kernel_column, channel = (variable.var for variable in block.iter_vars)
    images, rows, columns, outputs, *kernel, inputs = (int(variable.dom.extent) for variable in block.iter_vars)
    kernel_rows, kernel_columns = kernel
    condition = None
    if isinstance(element, ir.Call) and getattr(element.op, "name", "") == "prim.if_then_else":
        if not _is_zero(element.args[2]):
            return None
        condition, element = element.args[0], element.args[1]
    if not isinstance(element, ir.TensorLoad) or len(element.indices) != 4:
        return None
    batch, height, width, channels = _shape(element.source)
    if (batch, channels) != (images, inputs) or not _are([element.indices[0], element.indices[3]], n, channel):
        return None
    if not _are(weights.indices, kernel_row, kernel_column, channel, output):
        return None
    if _shape(weights.source) != (kernel_rows, kernel_columns, inputs, outputs):
        return None
    vertical = _stride_and_padding(element.indices[1], row, kernel_row, rows, kernel_rows)
    horizontal = _stride_and_padding(element.indices[2], column, kernel_column, columns, kernel_columns)
    if vertical is None or horizontal is None:
        return None
    strides, padding = (vertical[0], horizontal[0]), (vertical[1], horizontal[1])
    taps = (kernel_rows, kernel_columns)
    layer = FloatConvolution(batch, height, width, channels, rows, columns, outputs, taps, strides, padding)
    axes = np.ogrid[:rows, :kernel_rows, :columns, :kernel_columns]
    y, x = axes[0] * strides[0] + axes[1] - padding[0], axes[2] * strides[1] + axes[3] - padding[1]
    present = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if condition is not None:
        positions = dict(zip((row, kernel_row, column, kernel_column), axes, strict=True))
        read = index_values(condition, positions)
        if read is None or not np.array_equal(np.broadcast_to(read, present.shape), present):
            return None
    elif not present.all():
        return None
    return _Match(layer, element.source, weights.source, total)


def _stride_and_padding(
    index: Expr, output: tirx.Var, tap: tirx.Var, outputs: int, taps: int
) -> tuple[int, int] | None:
    """(s, p) of an index ``s * output + tap - p``."""
    positions = np.ogrid[0 : max(outputs, 2), 0 : max(taps, 2)]
    values = index_values(index, {output: positions[0], tap: positions[1]})
    if values is None:
        return None
    values = np.broadcast_to(values, (max(outputs, 2), max(taps, 2)))[:outputs, :taps]
    padding = -int(values[0, 0])
    stride = int(values[1, 0]) + padding if outputs > 1 else 1
    expected = positions[0][:outputs] * stride + positions[1][:, :taps] - padding
    return (stride, padding) if padding >= 0 and stride > 0 and np.array_equal(values, expected) else None


def _epilogue(block: s_tir.SBlock, total: tirx.Buffer) -> Epilogue | None:
    """Computes the block's value at a position from the sum there; None if it reads sums of other positions."""
    axes = len(block.iter_vars)
    store = block.body
    if any(int(variable.iter_type) != tirx.IterVar.DataPar for variable in block.iter_vars):
        return None
    if not isinstance(store, tirx.BufferStore) or not _is_at(store.indices, block, axes):
        return None
    if _shape(store.buffer) != _shape(total):
        return None
    elsewhere = []

    def visit(load: ir.TensorLoad) -> None:
        if load.source.same_as(total) and not _is_at(load.indices, block, axes):
            elsewhere.append(load)

    tvm_ffi.structural_walk(store.value, (ir.TensorLoad, visit))
    if elsewhere:
        return None
    variables = [variable.var for variable in block.iter_vars]

    def value(position: tuple[Expr, Expr, Expr, Expr], sum_here: Expr) -> Expr:
        # A matrix product's rows are the pixels of one image row.
        places = dict(zip(variables, position if axes == 4 else position[2:], strict=True))

        def replace_load(load: ir.TensorLoad) -> Expr:
            return sum_here if load.source.same_as(total) else load

        replaced = tvm_ffi.structural_map(store.value, (ir.TensorLoad, replace_load))
        return tvm_ffi.structural_map(replaced, (tirx.Var, lambda variable: places.get(variable, variable)))

    return value


def _is_at(indices: list[Expr], block: s_tir.SBlock, axes: int) -> bool:
    return _are(indices, *(variable.var for variable in block.iter_vars[:axes]))


def _are(indices: list[Expr], *variables: tirx.Var) -> bool:
    """Whether the indices are the variables; an axis of extent 1 may be indexed by 0."""
    return len(indices) == len(variables) and all(a.same_as(b) for a, b in zip(indices, variables, strict=True))


def _is_zero(value: Expr) -> bool:
    return isinstance(value, tirx.FloatImm) and float(value.value) == 0 and math.copysign(1, float(value.value)) > 0


def _shape(buffer: tirx.Buffer) -> tuple[int, ...]:
    return tuple(int(extent) for extent in buffer.shape)
