"""Compute what one loop nest only hands to the next where it is read, so that no intermediate goes through memory.

Before::

    for n, h, w, c: pad[…] = if_then_else(…, x[…], 0)
    for n, h, w, o, kh, kw, c: y[n, h, w, o] += pad[…] * weight[kh, kw, c, o]
After::

    for n, h, w, o, kh, kw, c: y[n, h, w, o] += if_then_else(…, x[…], 0) * weight[kh, kw, c, o]

Where: in ``schedule_float`` and ``schedule_gpu``, after ``rounded_products``.
Not handled: sums, and what its readers would compute more than twice as often; they stay loops of their own.
"""

from __future__ import annotations

from math import prod

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import SBlockRV, ScheduleError

# A producer is recomputed inside its reader when that at most doubles its work, or when it only moves data.
_RECOMPUTATION = 2


def comes_scheduled(function: tirx.PrimFunc) -> bool:
    """Whether a kernel is a binary one (attribute ``bnn.kernel``), or another that has a schedule."""
    own = function.attrs is not None and "bnn.kernel" in function.attrs
    return own or not isinstance(function.body, s_tir.SBlockRealize)


def inline_producers(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel that is not scheduled yet."""
    schedule = s_tir.Schedule(tvm.IRModule({"main": function}), error_render_level="none")
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _inline(schedule, block)
    return schedule.mod["main"]


def has_reductions(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether the block has axes that are summed over, or walked in order."""
    return any(int(variable.iter_type) != tirx.IterVar.DataPar for variable in schedule.get(block).iter_vars)


def domain(schedule: s_tir.Schedule, block: SBlockRV) -> int:
    """How often the block's body is executed."""
    return prod(int(variable.dom.extent) for variable in schedule.get(block).iter_vars)


def _inline(schedule: s_tir.Schedule, block: SBlockRV) -> None:
    consumers = schedule.get_consumers(block)
    if has_reductions(schedule, block) or not consumers:
        return
    if not _only_moves_data(schedule, block):
        elements = domain(schedule, block)
        if any(domain(schedule, consumer) > _RECOMPUTATION * elements for consumer in consumers):
            return
    try:
        schedule.compute_inline(block)
    except ScheduleError:
        return  # an output, or read in a way that cannot be inlined: it stays a loop of its own


def _only_moves_data(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Whether the block copies elements, with a constant where an index is out of range: padding, slices, transposes."""
    body = schedule.get(block).body
    value = body.value if isinstance(body, tirx.BufferStore) else None
    if isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == "prim.if_then_else":
        value = value.args[1]
    return isinstance(value, tvm.ir.TensorLoad)
