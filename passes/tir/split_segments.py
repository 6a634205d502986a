"""Cut the last axis of a loop nest where a concatenation changes its source, so that no vector has to choose.

Before::

    for h, w, c in grid(H, W, 64): y[h, w, c] = if_then_else(32 <= c, b[h, w, c - 32], a[h, w, c]) + bias[c]
After::

    for h, w, c in grid(H, W, 32):
        y[h, w, c] = a[h, w, c] + bias[c]
        y[h, w, c + 32] = b[h, w, c] + bias[c + 32]

Segments of one length share a loop: what they compute from the same elements, as the sine and cosine of one phase, is then
computed once. Segments without a useful common length get a loop nest each. A choice element by element cost BCDNet-A 4.1 ms
of 8.9.
Where: in ``schedule_float``, after inlining, before loops are cut into vectors.
Not handled: reductions, and more segments than a concatenation has.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import Call, Expr

from bnn_deploy.passes.tir.index_values import index_values

# More stores than this in one loop body would not keep their operands in registers.
_STORES = 8
# More segments than this are no concatenation but a permutation of elements.
_SEGMENTS = 16


def split_segments(function: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """Run the pass on a kernel whose blocks have one loop per axis; ``lanes``: elements that a vector should have at least."""
    root = function.body.block
    statements = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    cut = [piece for statement in statements for piece in _split(statement, lanes)]
    if len(cut) == len(statements) and all(a is b for a, b in zip(cut, statements, strict=True)):
        return function
    body = cut[0] if len(cut) == 1 else tirx.SeqStmt(cut)
    new = s_tir.SBlock(
        root.iter_vars, root.reads, root.writes, root.name_hint, body, root.init, root.alloc_buffers, root.match_buffers
    )
    return tirx.PrimFunc(function.params, s_tir.SBlockRealize([], True, new), function.ret_type, function.attrs)


def _split(nest: tirx.Stmt, lanes: int) -> list[tirx.Stmt]:
    """The loop nests that replace ``nest``; itself when there is nothing to cut."""
    statement, depth = nest, 0
    while isinstance(statement, tirx.For):
        statement, depth = statement.body, depth + 1
    block = statement.block if isinstance(statement, s_tir.SBlockRealize) else None
    if (
        block is None
        or not isinstance(block.body, tirx.BufferStore)
        or len(block.iter_vars) != depth
        or any(int(variable.iter_type) != tirx.IterVar.DataPar for variable in block.iter_vars)
        or not depth
    ):
        return [nest]
    axis = block.iter_vars[-1]
    extent = int(axis.dom.extent)
    starts = _segment_starts(block.body, axis.var, extent)
    if len(starts) == 1 or len(starts) > _SEGMENTS:
        return [nest]
    step = gcd(*starts, extent)
    if step >= lanes // 2 and extent // step <= _STORES:
        return [_nest(block, range(0, extent, step), step)]
    ends = [*starts[1:], extent]
    return [_nest(block, [start], end - start) for start, end in zip(starts, ends, strict=True)]


def _segment_starts(store: tirx.BufferStore, axis: tirx.Var, extent: int) -> list[int]:
    """Where along ``axis`` a condition that depends on it alone changes; always begins with 0."""
    changes = np.zeros(extent, bool)
    changes[0] = True

    def visit(call: Call) -> None:
        if _is_choice(call):
            holds = index_values(call.args[0], {axis: np.arange(extent)})
            if holds is not None:
                changes[1:] |= np.diff(np.broadcast_to(holds, extent).astype(np.int8)) != 0

    tvm_ffi.structural_walk(store, (Call, visit))
    return [int(index) for index in np.flatnonzero(changes)]


def _nest(block: s_tir.SBlock, starts: range | list[int], extent: int) -> tirx.Stmt:
    """A loop nest over ``extent`` elements of the last axis that stores those from each of ``starts``."""
    extents = [int(variable.dom.extent) for variable in block.iter_vars[:-1]] + [extent]
    axes = [tirx.Var(variable.var.name, variable.var.ty) for variable in block.iter_vars]
    stores = [_shifted(block, axes, start, extent) for start in starts]
    body = stores[0] if len(stores) == 1 else tirx.SeqStmt(stores)
    zero = tirx.IntImm(axes[0].ty.dtype, 0)
    variables = [
        tirx.IterVar(ir.Range.from_min_extent(zero, tirx.IntImm(axis.ty.dtype, size)), axis, tirx.IterVar.DataPar)
        for axis, size in zip(axes, extents, strict=True)
    ]
    reads = [tirx.BufferRegion(region.source, _everything(region.source)) for region in block.reads]
    writes = [
        tirx.BufferRegion(store.buffer, [ir.Range.from_min_extent(index, 1) for index in store.indices])
        for store in stores
    ]
    loops = [tirx.Var(f"ax{number}", axis.ty) for number, axis in enumerate(axes)]
    statement = s_tir.SBlockRealize(loops, True, s_tir.SBlock(variables, reads, writes, block.name_hint, body))
    for loop, size in zip(reversed(loops), reversed(extents), strict=True):
        statement = tirx.For(loop, zero, tirx.IntImm(loop.ty.dtype, size), tirx.ForKind.SERIAL, statement)
    return statement


def _shifted(block: s_tir.SBlock, axes: list[tirx.Var], start: int, extent: int) -> tirx.BufferStore:
    """The block's store with its last axis moved by ``start``; conditions that hold or fail in the whole segment are decided."""
    last = block.iter_vars[-1].var
    positions = np.arange(start, start + extent)

    def decide(call: Call) -> Expr:
        if _is_choice(call):
            holds = index_values(call.args[0], {last: positions})
            if holds is not None and np.all(holds):
                return call.args[1]
            if holds is not None and not np.any(holds):
                return call.args[2]
        return call

    decided = tvm_ffi.structural_map(block.body, (Call, decide))
    target = {variable.var: axis for variable, axis in zip(block.iter_vars, axes, strict=True)}
    target[last] = axes[-1] + start if start else axes[-1]
    return tvm_ffi.structural_map(decided, (tirx.Var, lambda variable: target.get(variable, variable)))


def _is_choice(call: Call) -> bool:
    return getattr(call.op, "name", "") == "prim.if_then_else"


def _everything(buffer: tirx.Buffer) -> list[ir.Range]:
    return [ir.Range.from_min_extent(0, extent) for extent in buffer.shape]
