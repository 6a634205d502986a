"""TIR kernels for a GPU as one CUDA C source, and how each of them is launched.

TVM generates the code of every kernel; in place of what it puts before them, which includes headers that a bare NVRTC does not
have, stand ``targets/cuda/device_functions.cuh`` and ``float_functions.cuh``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr
from tvm.tirx.script import builder as T

from bnn_deploy.errors import CompileError
from bnn_deploy.passes.tir.launch_statements import flat, is_launch
from bnn_deploy.passes.tir.rounded_products import fenced_value, fused_operands
from bnn_deploy.plan import Launch
from bnn_deploy.targets.cuda import device_functions

_DEVICE_FUNCTIONS = tuple(
    Path(device_functions.__file__).with_name(name) for name in ("device_functions.cuh", "float_functions.cuh")
)
_KERNELS_BEGIN = 'extern "C" __global__'

_LOWERING = (
    tirx.transform.StmtSimplify(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    tirx.transform.VectorizeLoop(True),
    tirx.transform.UnrollLoop(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
)
# Common expressions are left to NVRTC: as variables they would hide from TVM that an index is a multiple of a vector.
_FINAL = (tirx.transform.LowerWarpMemory(), tirx.transform.LowerIntrin())


def cuda_source(kernels: Sequence[tirx.PrimFunc], sm: int) -> str:
    """The source of device kernels.

    Args:
        kernels: as ``device_kernels`` gives them.
        sm: compute capability times ten.
    """
    # NVRTC is told the real architecture; TVM only decides by it what it may generate.
    target = tvm.target.Target({"kind": "cuda", "arch": f"sm_{sm}", "max_num_threads": 1024})
    module = tvm.IRModule({str(k.attrs["global_symbol"]): k.with_attr("target", target) for k in kernels})
    module = tvm.ir.transform.Sequential(_FINAL)(module)
    module = tvm.IRModule({variable: _cuda_calls(function) for variable, function in module.functions_items()})
    text = tvm.get_global_func("target.build.cuda")(module, target).inspect_source()
    functions = "\n".join(path.read_text(encoding="utf-8") for path in _DEVICE_FUNCTIONS)
    return f"{functions}\n{text[text.index(_KERNELS_BEGIN) :]}"


def device_kernels(function: tirx.PrimFunc) -> tuple[tuple[tirx.PrimFunc, ...], tuple[Launch, ...]]:
    """Cut a kernel of the plan (see ``raw_pointers``) into what is launched one after the other, and lower it.

    Every launch becomes a kernel of its own, with all parameters of the whole.

    Raises:
        CompileError: part of it runs on no thread (a defect of a schedule).
    """
    symbol = str(function.attrs["global_symbol"])
    declarations = [part for part in flat(function.body) if isinstance(part, tirx.DeclBuffer)]
    nests = [part for part in flat(function.body) if not isinstance(part, tirx.DeclBuffer)]
    if not nests or not all(is_launch(nest) for nest in nests):
        raise CompileError(
            f"Kernel {symbol} has work outside of its threads. This is a defect of bnn-deploy; please report it."
        )
    kernels, launches = [], []
    for number, nest in enumerate(nests):
        name = symbol if len(nests) == 1 else f"{symbol}_{number}"
        body = tirx.SeqStmt([*declarations, nest])
        kernel = tirx.PrimFunc(function.params, body, tvm.ir.PrimType("void"), function.attrs)
        kernel = kernel.with_attr("global_symbol", name).with_attr("tirx.is_global_func", True)
        kernels.append(_lowered(kernel, name))
        launches.append(_launch(name, nest))
    return tuple(kernels), tuple(launches)


def _lowered(function: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    # "#pragma unroll" leaves the unrolling to NVRTC, which keeps the source small.
    with tvm.transform.PassContext(config={"tirx.UnrollLoop": {"explicit_unroll": False}}):
        return tvm.ir.transform.Sequential(_LOWERING)(tvm.IRModule({symbol: function}))[symbol]


def _launch(name: str, nest: tirx.Stmt) -> Launch:
    """How many blocks and threads a nest is bound to."""
    sizes: dict[str, int] = {}

    def visit(statement: tirx.AttrStmt) -> None:
        if is_launch(statement):
            sizes[str(statement.node.thread_tag)] = int(statement.value)

    tvm_ffi.structural_walk(nest, (tirx.AttrStmt, visit))

    def extents(kind: str) -> tuple[int, int, int]:
        return sizes.get(f"{kind}.x", 1), sizes.get(f"{kind}.y", 1), sizes.get(f"{kind}.z", 1)

    return Launch(name, extents("blockIdx"), extents("threadIdx"))


def _cuda_calls(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """LLVM's intrinsics by CUDA's names; fences go, since CUDA's compilers are told to contract nothing."""

    def rename(call: Call) -> Expr:
        operands, bare = fused_operands(call), fenced_value(call)
        if operands is not None:
            return T.call_extern("float32", "fmaf", *operands)
        return call if bare is None else bare

    body = tvm_ffi.structural_map(function.body, [(Call, rename)])
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)
