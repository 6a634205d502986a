"""The compiler, as one list to read: every pass in order, by phase.

ONNX -> (freeze, merge) -> Relax -> (name, fold, lay out, pack, block, lower, fuse) -> TIR -> (schedule, raw pointers) -> plan.
Each pass is a file of its own, with a before/after example and the reason why it stands where it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import tvm
from tvm import tirx

from bnn_deploy.dialect.importer import import_onnx
from bnn_deploy.dialect.values import network_values
from bnn_deploy.errors import BnnDeployError, CompileError, message_lines
from bnn_deploy.passes.onnx.freeze_batch import freeze_batch
from bnn_deploy.passes.onnx.merge_heads import merge_heads
from bnn_deploy.passes.plan_memory import Constants, LoweredFunction, plan_memory
from bnn_deploy.passes.relax.block_rows import StagedNetwork, block_rows
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
from bnn_deploy.passes.tir.kernel_set import KernelSet
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.schedule_gpu import schedule_gpu
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
    run = _Runner(dump_ir, progress)
    return lower_packed(pack_network(model, batch, run), target, run)


def pack_network(
    model: onnx.ModelProto,
    batch: int,
    run: Callable[[str, Callable[[], object]], object] = lambda name, compute: compute(),
) -> tvm.IRModule:
    """The passes up to packed Relax, the same for all targets: what the network computes, and how its tensors lie in memory."""
    # Phase 1, ONNX: what is easiest while a layer is still one node.
    model = run("freeze_batch", lambda: freeze_batch(model, batch))
    model = run("merge_heads", lambda: merge_heads(model))

    # Phase 2, Relax: what the network computes.
    module = run("import_onnx", lambda: import_onnx(model, batch))
    module = run("name_layers", lambda: name_layers(module))
    module = run("fold_constants", lambda: fold_constants(module))
    module = run("drop_identity", lambda: drop_identity(module))
    module = run("fold_threshold", lambda: fold_threshold(module))
    module = run("fold_affine", lambda: fold_affine(module))

    # Phase 3, Relax: how it lies in memory.
    module = run("to_channels_last", lambda: to_channels_last(module))
    module = run("decompose_group_norm", lambda: decompose_group_norm(module))
    module = run("split_means", lambda: split_means(module))
    module = run("pack", lambda: pack(module))
    module = run("gather_shifts", lambda: gather_shifts(module))
    return run("merge_layers", lambda: merge_layers(module))


def lower_packed(
    module: tvm.IRModule,
    target: Target,
    run: Callable[[str, Callable[[], object]], object] = lambda name, compute: compute(),
) -> Lowered:
    """The passes from packed Relax on: from what the network computes to how the target does."""
    # A GPU has memory enough for whole tensors, and one kernel fills all of its cores.
    network = StagedNetwork(module, {}) if target.gpu else run("block_rows", lambda: block_rows(module))
    functions = {"main": network.main} | {name: stage.module for name, stage in network.stages.items()}
    functions = run("merge_packs", lambda: {name: merge_packs(f) for name, f in functions.items()})

    # What follows depends on the core, and is done once for every kernel set of the target.
    constants, lowered = Constants(), []
    for name, variant in target.variants:
        suffix = f"_{name}".replace("-", "_") if lowered else ""
        lowered.append(_lower_to_kernels(functions, network, variant, suffix, constants, run))
    first = lowered[0].plan
    return Lowered(
        tuple(part.kernels for part in lowered),
        replace(
            first,
            weights=lowered[-1].plan.weights,  # each plan adds its constants to those of the plans before it
            arena_bytes=max(part.plan.arena_bytes for part in lowered),
            workspace_bytes=max(part.plan.workspace_bytes for part in lowered),
            kernel_set=target.variants[0][0],
            other_sets=tuple(
                KernelSetSteps(name, part.plan.steps)
                for (name, _), part in zip(target.variants[1:], lowered[1:], strict=True)
            ),
            values=network_values(module),
        ),
        lowered[0].launched,
    )


@dataclass(frozen=True)
class _LoweredVariant:
    """What one kernel set adds."""

    kernels: tvm.IRModule
    plan: ExecutionPlan
    launched: tuple[tirx.PrimFunc, ...]


def _lower_to_kernels(
    functions: dict[str, tvm.IRModule],
    network: StagedNetwork,
    target: Target,
    suffix: str,
    constants: Constants,
    run: Callable[[str, Callable[[], object]], object],
) -> _LoweredVariant:
    """Kernels and plan for one processor; passes and C symbols are named with ``suffix``."""
    # Phase 4, Relax to TIR, for the network and for one block of every stage: which kernel computes it.
    functions = run(f"fuse_epilogue{suffix}", lambda: {n: fuse_epilogue(f, target) for n, f in functions.items()})
    functions = run(f"lower_binary{suffix}", lambda: {n: lower_binary(f, target) for n, f in functions.items()})
    functions = run(f"fuse_float{suffix}", lambda: {n: fuse_float(f) for n, f in functions.items()})

    # Phase 5, TIR and the plan.
    schedule = schedule_float if target.gpu is None else schedule_gpu
    kernels = KernelSet(lambda function: schedule(function, target), suffix, on_gpu=target.gpu is not None)
    lowered = run(f"kernel_set{suffix}", lambda: {n: LoweredFunction(f, kernels.of(f)) for n, f in functions.items()})
    stages = {name: (stage, lowered[name]) for name, stage in network.stages.items()}
    plan = run(f"plan_memory{suffix}", lambda: plan_memory(lowered["main"], stages, constants))
    return _LoweredVariant(kernels.module(), plan, tuple(kernels.launched))


class _Runner:
    """Runs one pass after another: reports it, dumps what it made, and turns a crash into an error that names the pass."""

    def __init__(self, dump_ir: Path | None, progress: Callable[[str], None]) -> None:
        self.dump_ir = dump_ir
        self.progress = progress
        self.count = 0

    def __call__(self, name: str, compute: Callable[[], object]) -> object:
        self.count += 1
        self.progress(name)
        try:
            result = compute()
        except BnnDeployError:
            raise
        except Exception as error:
            reason = message_lines(error)[-1]
            raise CompileError(
                f"The pass '{name}' failed on this model: {reason} This is a defect of bnn-deploy; please report it with "
                "the ONNX file and the output of --debug."
            ) from error
        if self.dump_ir is not None:
            self._dump(name, result)
        return result

    def _dump(self, name: str, result: object) -> None:
        path = self.dump_ir / f"{self.count:02d}_{name}"
        if isinstance(result, onnx.ModelProto):
            path.with_suffix(".onnx").write_bytes(result.SerializeToString())
        else:
            path.with_suffix(".txt").write_text(_text(result))


def _text(result: object) -> str:
    if isinstance(result, (tvm.IRModule, StagedNetwork)):
        return result.script()
    if isinstance(result, ExecutionPlan):
        return result.script()
    parts = []
    for name, value in result.items():
        if isinstance(value, LoweredFunction):
            parts += [f"# {name} calls {kernel}\n{raw.function.script()}" for kernel, raw in value.kernels.items()]
        else:
            parts.append(f"# {name}\n{value.script()}")
    return "\n\n".join(parts)
