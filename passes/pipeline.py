"""The compiler, as one list to read: every pass in order, by phase.

ONNX -> (freeze, merge) -> Relax -> (name, fold, lay out, pack, lower, fuse) -> TIR -> (schedule, raw pointers) -> plan.
Each pass is a file of its own, with a before/after example and the reason why it stands where it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import tvm
import tvm_ffi
from tvm import tirx

from bnn_deploy.errors import BnnDeployError, CompileError, message_lines
from bnn_deploy.importer import import_onnx
from bnn_deploy.passes.onnx.freeze_batch import freeze_batch
from bnn_deploy.passes.onnx.merge_heads import merge_heads
from bnn_deploy.passes.plan_memory import plan_memory
from bnn_deploy.passes.relax.decompose_group_norm import decompose_group_norm
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_constants import fold_constants
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.relax.lower_binary import lower_binary
from bnn_deploy.passes.relax.name_layers import name_layers
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.passes.tir.raw_pointers import RawKernel, raw_pointers
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.plan import ExecutionPlan
from bnn_deploy.targets.base import Target


@dataclass(frozen=True)
class Lowered:
    """What the passes make of a network: TIR kernels with C symbols, and the plan that calls them."""

    kernels: tvm.IRModule
    plan: ExecutionPlan


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
    module = run("pack", lambda: pack(module))

    # Phase 4, Relax to TIR: which kernel computes it.
    module = run("lower_binary", lambda: lower_binary(module, target))
    module = run("fuse_float", lambda: fuse_float(module))

    # Phase 5, TIR and the plan.
    kernels = run("schedule_float", lambda: _scheduled(module, target))
    raw = run("raw_pointers", lambda: _raw(kernels))
    plan = run("plan_memory", lambda: plan_memory(module, raw))
    unique = {str(kernel.function.attrs["global_symbol"]): kernel.function for kernel in raw.values()}
    return Lowered(tvm.IRModule(unique), plan)


def _scheduled(module: tvm.IRModule, target: Target) -> dict[str, tirx.PrimFunc]:
    functions = {v.name_hint: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}
    return {name: schedule_float(functions[name], target) for name in sorted(functions)}


def _raw(kernels: dict[str, tirx.PrimFunc]) -> dict[str, RawKernel]:
    """Raw kernels by function name; structurally equal ones are one C symbol."""
    raw: dict[str, RawKernel] = {}
    seen: dict[int, list[tuple[tirx.PrimFunc, RawKernel]]] = {}
    for name, function in kernels.items():
        alike = seen.setdefault(tvm_ffi.structural_hash(function), [])
        same = next((kernel for other, kernel in alike if tvm_ffi.structural_equal(function, other)), None)
        if same is None:
            same = raw_pointers(function, f"bnn_kernel_{name}")
            alike.append((function, same))
        raw[name] = same
    return raw


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
    if isinstance(result, tvm.IRModule):
        return result.script()
    if isinstance(result, ExecutionPlan):
        return (
            "\n".join(
                f"{s.kind:6} {s.kernel}({', '.join(f'{a.space.value}+{a.offset}' for a in s.arguments)})  # {s.layer}"
                for s in result.steps
            )
            + f"\narena {result.arena_bytes} bytes, weights {len(result.weights)} bytes\n"
        )
    functions = [value.function if isinstance(value, RawKernel) else value for value in result.values()]
    return "\n\n".join(function.script() for function in functions)
