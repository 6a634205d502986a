"""Give the float kernels to the threads of a GPU: every loop nest becomes a launch.

Before::

    for n, h, w, o, i, j, c: t[n, h, w, o] += if_then_else(inside, x[n, 2 * h + i - 1, 2 * w + j - 1, c], 0) * f[i, j, c, o]
    for n, h, w, o: y[n, h, w, o] = t[n, h, w, o] + bias[o]
After::

    launch blockIdx.x, threadIdx.x:                       # each thread has a tile of outputs; t is gone
        for i, j, c: total[…] += …                        # in registers
        y[n, h, w, o:o + 4] = total[…] + bias[o:o + 4]

    launch blockIdx.x, threadIdx.x:                       # few outputs of many terms: threads share the terms of each
        for k in range(K / P): total[0] += x[g, k * P + r]
        shared[…] = total[0];  barrier;  …                # a tree adds the P sums
        if r == 0: y[g] = shared[…]

What only the next nest reads, element by element, does not leave the registers. Other intermediates go through global memory,
from one launch to the next. What one thread sums, it sums in the order of the processors' kernels. Threads that share a sum
have every P-th term each, in that order, and their sums are added by a fixed tree: the result is the same in every run and on
every GPU, but not that of a processor.
Where: on TIR after ``fuse_float``, in place of ``schedule_float``; binary kernels come for threads and are left alone.
Not handled: loops that are neither elementwise nor a reduction, and tensors of 2**31 elements: CompileError.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr

from bnn_deploy.errors import CompileError
from bnn_deploy.passes.tir.device_math import device_math
from bnn_deploy.passes.tir.exponential_functions import exponential_functions
from bnn_deploy.passes.tir.gpu_tile import select_tile
from bnn_deploy.passes.tir.inline_producers import comes_scheduled, inline_producers
from bnn_deploy.passes.tir.loop_nest import LoopNest, StoreNest, loads_of, read_nest
from bnn_deploy.passes.tir.nest_launch import launch_as_it_stands
from bnn_deploy.passes.tir.rounded_products import rounded_products
from bnn_deploy.passes.tir.tile_launch import TileLaunch, sums_split

_LARGEST = 2**31


def schedule_gpu(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel; binary kernels (attribute ``bnn.kernel``) come for threads, and get ``device_math`` only.

    Raises:
        CompileError: a tensor of 2**31 elements or more, or an operator that is no nest of loops.
    """
    if comes_scheduled(function):
        return device_math(function)
    inlined = inline_producers(rounded_products(exponential_functions(function)))
    root = inlined.body.block
    for buffer in (*function.params, *root.alloc_buffers):
        _require_small(buffer)
    statements = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    nests = [_nest(statement, function) for statement in statements]
    launches, kept, index = [], list(root.alloc_buffers), 0
    while index < len(nests):
        nest, after = nests[index], _only_reader(nests[index:], function)
        if not isinstance(nest, StoreNest):
            launches.append(launch_as_it_stands(nest))
        else:
            launches.append(_launch(nest, after))
            if after is not None:
                kept = [buffer for buffer in kept if not buffer.same_as(nest.store.buffer)]
        index += 1 if after is None else 2
    body = launches[0] if len(launches) == 1 else tirx.SeqStmt(launches)
    if kept:
        # Only this holds memory that the plan has to provide; see raw_pointers.
        body = s_tir.SBlockRealize([], True, s_tir.SBlock([], [], [], "root", body, None, kept))
    scheduled = tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)
    return device_math(scheduled)


def _require_small(buffer: tirx.Buffer) -> None:
    elements = prod(int(extent) for extent in buffer.shape)
    if elements >= _LARGEST:
        raise CompileError(
            f"Tensor {buffer.name} has {elements} elements, but kernels for GPUs count to {_LARGEST - 1}; compile for a "
            "smaller batch with --batch."
        )


def _nest(statement: tirx.Stmt, function: tirx.PrimFunc) -> LoopNest:
    nest = read_nest(statement)
    if nest is None:
        name = (function.attrs or {}).get("global_symbol", "an operator")
        raise CompileError(
            f"Kernel {name} has a loop that is neither elementwise nor a reduction, which GPUs have no schedule for; "
            "compile this model for a processor."
        )
    return nest


def _only_reader(nests: Sequence[LoopNest], function: tirx.PrimFunc) -> StoreNest | None:
    """The second nest, if it is elementwise in the sums of the first, and nothing else reads them."""
    nest, after = nests[0], nests[1] if len(nests) > 1 else None
    if not isinstance(nest, StoreNest) or not isinstance(after, StoreNest):
        return None
    buffer = nest.store.buffer
    reads = [load for load in loads_of(after.store.value) if load.source.same_as(buffer)]
    alone = (
        bool(nest.reduced and reads)
        and not after.reduced
        and after.extents == nest.extents
        and nest.is_at_point(list(nest.store.indices))
        and all(after.is_at_point(list(load.indices)) for load in reads)
        and not any(buffer.same_as(parameter) for parameter in function.params)
        and not any(load.source.same_as(buffer) for other in nests[2:] for load in loads_of(other.block.body))
    )
    return after if alone else None


def _launch(nest: StoreNest, after: StoreNest | None) -> tirx.Stmt:
    shares, parts_first = False, False
    if nest.reduced:
        operands = [load for load in loads_of(nest.store.value) if not load.source.same_as(nest.store.buffer)]
        shares = len({load.source.name for load in operands}) > 1
        largest = max(operands, key=lambda load: prod(int(e) for e in load.source.shape), default=None)
        parts_first = largest is not None and bool(largest.indices) and _uses(largest.indices[-1], nest.reduced[-1])
    tile = select_tile(nest.extents, prod(nest.terms), sums_split(nest), shares, parts_first)
    return TileLaunch(nest, after, tile).statement()


def _uses(index: Expr, variable: tirx.Var) -> bool:
    found: list[tirx.Var] = []
    tvm_ffi.structural_walk(index, (tirx.Var, lambda v: found.append(v) if v.same_as(variable) else None))
    return bool(found)
