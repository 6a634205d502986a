"""Schedule the float kernels of a GPU."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from bnn_deploy.passes.tir.explicit_fma import explicit_fma
from bnn_deploy.passes.tir.inline_producers import inline_producers
from bnn_deploy.passes.tir.vector_math import vector_math
from bnn_deploy.targets.base import Target


def schedule_gpu(function: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    """Run the pass on one kernel; binary kernels (attribute ``bnn.kernel``) are returned as they are."""
    inlined = inline_producers(function)
    if inlined is None:
        return function
    schedule = s_tir.Schedule(tvm.IRModule({"main": inlined}), error_render_level="none")
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        loops = schedule.get_loops(block)
        kinds = [int(variable.iter_type) for variable in schedule.get(block).iter_vars]
        spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar]
        rest = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != tirx.IterVar.DataPar]
        schedule.reorder(*spatial, *rest)
        fused = schedule.fuse(*spatial) if spatial else schedule.add_unit_loop(loops[0])
        outer, inner = schedule.split(fused, [None, 128])
        schedule.bind(outer, "blockIdx.x")
        schedule.bind(inner, "threadIdx.x")
    return explicit_fma(vector_math(schedule.mod["main"].with_attrs(function.attrs)))
