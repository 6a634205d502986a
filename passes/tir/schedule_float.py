"""Schedule the float kernels: no needless intermediates, the last axis in vector registers, the outer axes over threads.

Before::

    for n, h, w, c: pad[…] = if_then_else(…, x[…], 0)
    for n, h, w, o, kh, kw, c: y[n, h, w, o] += pad[…] * weight[kh, kw, c, o]
After::

    for n_h (parallel), w, o_outer:
        for o_inner (vectorised): y[…] = 0
        for kh, kw, c, o_inner (vectorised): y[…] += if_then_else(…, x[…], 0) * weight[kh, kw, c, o]

A reduction keeps its order of summation, so results do not depend on the number of threads.
Where: on TIR after ``fuse_float``; binary kernels come scheduled and are left alone.
Not handled: blocks whose axes are not a loop each; they keep the loops they come with.
"""

from __future__ import annotations

import math

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from bnn_deploy.passes.tir.exponential_functions import exponential_functions
from bnn_deploy.passes.tir.inline_producers import comes_scheduled, domain, inline_producers
from bnn_deploy.passes.tir.rounded_products import rounded_products
from bnn_deploy.passes.tir.split_segments import split_segments
from bnn_deploy.passes.tir.tile_convolution import tile_convolution
from bnn_deploy.passes.tir.vector_math import vector_math
from bnn_deploy.targets.base import Target

# Vectors wider than this many registers spill; narrower than half a register, LLVM does better alone.
_MAXIMUM_REGISTERS = 4
# Below this many elements, waking threads costs more than they save.
_PARALLEL_ELEMENTS = 16384
# A reduction of at most this many terms, as a pooling window, is unrolled: LLVM then keeps its sums in registers.
_UNROLLED_TAPS = 49


def schedule_float(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Run the pass on one kernel; binary kernels (attribute ``bnn.kernel``) are returned as they are."""
    if comes_scheduled(function):
        return function
    inlined = inline_producers(rounded_products(exponential_functions(function)))
    tiled = tile_convolution(inlined, target, _PARALLEL_ELEMENTS)
    if tiled is not None:
        return vector_math(tiled)
    inlined = split_segments(inlined, target.float_lanes)
    schedule = s_tir.Schedule(tvm.IRModule({"main": inlined}), error_render_level="none")
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _schedule_block(schedule, block, target)
    return vector_math(schedule.mod["main"].with_attrs(function.attrs))


def _schedule_block(schedule: s_tir.Schedule, block: SBlockRV, target: Target) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(variable.iter_type) for variable in schedule.get(block).iter_vars]
    if not loops or len(kinds) != len(loops):
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
    reductions = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.CommReduce]
    if len(spatial) + len(reductions) != len(loops) or not spatial:
        return
    elements = domain(schedule, block)
    last = spatial[-1]
    lanes = _vector_lanes(_extent(schedule, last), target)
    inner = None
    if lanes > 1:
        outer, inner = schedule.split(last, [None, lanes])
        spatial[-1] = outer
        schedule.reorder(*spatial, *reductions, inner)
    elif reductions:
        schedule.reorder(*spatial, *reductions)
    outer_loops = spatial[:-1] or spatial
    fused = schedule.fuse(*outer_loops) if len(outer_loops) > 1 else outer_loops[0]
    if elements >= _PARALLEL_ELEMENTS and _extent(schedule, fused) > 1:
        schedule.parallel(fused)
    if inner is not None:
        schedule.vectorize(inner)
    if reductions and math.prod(_extent(schedule, loop) for loop in reductions) <= _UNROLLED_TAPS:
        for loop in reductions:
            schedule.unroll(loop)
    if reductions:
        initial = schedule.decompose_reduction(block, reductions[0])
        if inner is not None:
            schedule.vectorize(schedule.get_loops(initial)[-1])


def _vector_lanes(extent: int, target: Target) -> int:
    """The largest divisor of ``extent`` that fills at least half a register and at most a few; 1 if there is none."""
    widest = _MAXIMUM_REGISTERS * target.float_lanes
    fitting = [lanes for lanes in range(target.float_lanes // 2, widest + 1) if lanes > 1 and extent % lanes == 0]
    return max(fitting, default=1)


def _extent(schedule: s_tir.Schedule, loop: LoopRV) -> int:
    return int(schedule.get(loop).extent)
