"""Runs what the passes make of a network on this machine: whole modules in TVM's own VM, single kernels by ctypes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import relax, tirx

from bnn_deploy.passes.pipeline import Lowered
from bnn_deploy.plan import Space
from bnn_deploy.targets.base import Target

# The thread pool's entry point: here one thread does all tasks, from the last to the first.
LAUNCHER = """
#include <stdint.h>
typedef struct { void *sync; int32_t num_task; } environment_t;
static int launch(int (*body)(int, environment_t *, void *), void *closure, int wanted) {
    environment_t environment = {0, wanted ? wanted : 3};
    for (int task = environment.num_task - 1; task >= 0; --task) {
        int status = body(task, &environment, closure);
        if (status) return status;
    }
    return 0;
}
int (*__TVMBackendParallelLaunch)(int (*)(int, environment_t *, void *), void *, int) = launch;
"""

# What the VM needs of TVM's default pipeline; its RewriteDataflowReshape takes no functions without blocks, as our kernels are.
PIPELINE = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
)


def run_module(module: tvm.IRModule, target: Target, *inputs: np.ndarray) -> np.ndarray:
    """The output of a module of TIR calls and standard operators."""
    executable = relax.build(module, tvm.target.Target(target.llvm), relax_pipeline=PIPELINE)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](*(tvm.runtime.tensor(np.asarray(x, "float32")) for x in inputs)).numpy()


def run_function(function: tirx.PrimFunc, target: Target, *arrays: np.ndarray) -> list[np.ndarray]:
    """All buffers after a call of a kernel on copies of ``arrays``."""
    built = tvm.tirx.build(function.with_attr("global_symbol", "kernel"), tvm.target.Target(target.llvm))
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    built["kernel"](*tensors)
    return [tensor.numpy() for tensor in tensors]


def shared_library(sources: Sequence[Path], output: Path) -> None:
    """Compile C files and link them with objects."""
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-O1", "-s", *sources, "-lm", "-o", output]
    subprocess.run(command, cwd=output.parent, check=True)


def link(module: tvm.IRModule, target: Target, folder: Path) -> ctypes.CDLL:
    """C kernels as a shared library, made from their object file as a bundle is."""
    tvm.tirx.build(module, tvm.target.Target(target.llvm)).write_to_file(str(folder / "kernels.o"), "o")
    (folder / "launcher.c").write_text(LAUNCHER)
    shared_library([folder / "kernels.o", folder / "launcher.c"], folder / "kernels.so")
    return ctypes.CDLL(str(folder / "kernels.so"))


def call_pointers(library: ctypes.CDLL, symbol: str, *arrays: np.ndarray, integers: tuple[int, ...] = ()) -> int:
    """``int32_t symbol(void *, …, int32_t …)`` on the memory of ``arrays``."""
    function = getattr(library, symbol)
    function.restype = ctypes.c_int32
    function.argtypes = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int32] * len(integers)
    return function(*(array.ctypes.data for array in arrays), *integers)


def aligned(array: np.ndarray, boundary: int = 64) -> np.ndarray:
    """A copy of ``array`` at an address that is a multiple of ``boundary``, as the arena's buffers are."""
    memory = np.zeros(array.nbytes + boundary, np.uint8)
    start = -memory.ctypes.data % boundary
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def run_plan(lowered: Lowered, target: Target, x: np.ndarray, folder: Path) -> np.ndarray:
    """The output of a compiled network, step by step through ctypes; the arena starts with rubbish, a block's workspace too."""
    plan = lowered.plan
    library = link(lowered.kernels[0], target, folder)
    arena = aligned(np.full(plan.arena_bytes, 0xCD, np.uint8))
    spaces = {
        Space.INPUT: aligned(x),
        Space.WEIGHTS: aligned(np.frombuffer(plan.weights, np.uint8)),
        Space.ARENA: arena,
    }
    spaces[Space.OUTPUT] = aligned(np.full(plan.outputs[0].shape, np.nan, "float32"))
    steps = iter(plan.steps)
    for stage in plan.schedule:
        members = [next(steps) for _ in range(stage.step_count)]
        for block in range(stage.blocks):
            spaces[Space.WORKSPACE] = aligned(np.full(plan.workspace_bytes, 0xCD, np.uint8))
            for step in members:
                memory = [
                    spaces[a.space].reshape(-1).view(np.uint8)[a.offset + block // a.every * a.stride :]
                    for a in step.arguments
                ]
                integers = (block,) if step.takes_block else ()
                assert call_pointers(library, step.kernel, *memory, integers=integers) == 0
    return spaces[Space.OUTPUT]
