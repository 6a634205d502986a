"""The compiler, as one list to read: every pass in order, by phase.

ONNX -> (freeze, merge) -> Relax -> (name, fold, lay out, pack, block, lower, fuse) -> TIR -> (schedule, raw pointers) -> plan.
Each pass is a file of its own, with a before/after example and the reason why it stands where it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import tvm
from tvm import tirx

from bnn_deploy.dialect.importer import import_onnx
from bnn_deploy.dialect.values import network_values
from bnn_deploy.passes.buffers import Constants
from bnn_deploy.passes.onnx.freeze_batch import freeze_batch
from bnn_deploy.passes.onnx.merge_heads import merge_heads
from bnn_deploy.passes.pass_runner import PassRunner
from bnn_deploy.passes.plan_memory import plan_memory
from bnn_deploy.passes.relax.block_rows import RowStage, StagedNetwork, block_rows
from bnn_deploy.passes.relax.decompose_group_norm import decompose_group_norm
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_constants import fold_constants
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.fuse_epilogue import fuse_epilogue
from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.relax.gather_shifts import gather_shifts
from bnn_deploy.passes.relax.lower_binary import lower_binary
from bnn_deploy.passes.relax.merge_layers import merge_layers
from bnn_deploy.passes.relax.merge_packs import merge_packs
from bnn_deploy.passes.relax.name_layers import name_layers
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.split_means import split_means
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.passes.tir.kernel_set import kernel_set
from bnn_deploy.plan import ExecutionPlan, KernelSetSteps
from bnn_deploy.targets.base import Target


@dataclass(frozen=True)
class Lowered:
    """What the passes make of a network: TIR kernels with C symbols, and the plan that calls them.

    Attributes:
        kernels: one module for each of the target's ``variants``.
        plan: the calls, of all kernel sets.
        launched: for a GPU, what ``cuda_source`` writes down: the kernels as the steps' ``launches`` name them.
    """

    kernels: tuple[tvm.IRModule, ...]
    plan: ExecutionPlan
    launched: tuple[tirx.PrimFunc, ...] = ()


def lower(
    model: onnx.ModelProto,
    target: Target,
    batch: int,
    dump_ir: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Lowered:
    """Run every pass on a checked ONNX model.

    Args:
        model: standard operators and the ``bnn_deploy`` domain.
        target: processor to select kernels for.
        batch: images per inference.
        dump_ir: existing folder that gets one numbered file per pass.
        progress: told the name of each pass as it starts.

    Raises:
        BnnDeployError: the model cannot be compiled; says which node or layer, or which pass.
    """
    run = PassRunner(dump_ir, progress)
    return lower_packed(pack_network(model, batch, run), target, run)


def pack_network(model: onnx.ModelProto, batch: int, run: PassRunner | None = None) -> tvm.IRModule:
    """The passes up to packed Relax, the same for all targets: what the network computes, and how its tensors lie in memory."""
    run = run or PassRunner()

    # Phase 1, ONNX: what is easiest while a layer is still one node.
    model = run(freeze_batch, model, batch)
    model = run(merge_heads, model)

    # Phase 2, Relax: what the network computes.
    module = run(import_onnx, model)
    module = run(name_layers, module)
    module = run(fold_constants, module)
    module = run(drop_identity, module)
    module = run(fold_threshold, module)
    module = run(fold_affine, module)

    # Phase 3, Relax: how it lies in memory.
    module = run(to_channels_last, module)
    module = run(decompose_group_norm, module)
    module = run(split_means, module)
    module = run(pack, module)
    module = run(gather_shifts, module)
    return run(merge_layers, module)


def lower_packed(module: tvm.IRModule, target: Target, run: PassRunner | None = None) -> Lowered:
    """The passes from packed Relax on: from what the network computes to how the target does."""
    run = run or PassRunner()

    # A GPU has memory enough for whole tensors, and one kernel fills all of its cores.
    network = run(block_rows, module) if target.gpu is None else StagedNetwork(module, {})
    functions = run.each(merge_packs, network.functions)

    # What follows depends on the core, and is done once for every kernel set of the target.
    constants, sets = Constants(), list[Lowered]()
    for name, variant in target.variants:
        suffix = f"_{name}".replace("-", "_") if sets else ""
        sets.append(_lower_for_core(functions, network.stages, variant, constants, replace(run, suffix=suffix)))
    plans = [part.plan for part in sets]
    names = [name for name, _ in target.variants]
    plan = replace(
        plans[0],
        weights=plans[-1].weights,  # each plan adds its constants to those of the plans before it
        arena_bytes=max(plan.arena_bytes for plan in plans),
        workspace_bytes=max(plan.workspace_bytes for plan in plans),
        kernel_set=names[0],
        other_sets=tuple(KernelSetSteps(name, plan.steps) for name, plan in zip(names[1:], plans[1:], strict=True)),
        values=network_values(module),
    )
    return Lowered(tuple(kernels for part in sets for kernels in part.kernels), plan, sets[0].launched)


def _lower_for_core(
    functions: Mapping[str, tvm.IRModule],
    stages: Mapping[str, RowStage],
    target: Target,
    constants: Constants,
    run: PassRunner,
) -> Lowered:
    """The kernels and the plan of one kernel set."""
    # Phase 4, Relax to TIR, for the network and for one block of every stage: which kernel computes it.
    functions = run.each(fuse_epilogue, functions, target)
    functions = run.each(lower_binary, functions, target)
    functions = run.each(fuse_float, functions)

    # Phase 5, TIR and the plan.
    lowered = run(kernel_set, functions, target, run.suffix)
    plan = run(plan_memory, lowered.functions, stages, constants)
    return Lowered((lowered.kernels,), plan, lowered.launched)
