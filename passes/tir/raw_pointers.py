"""Give a kernel the plain C signature ``int32_t kernel(void *, …)``.

Before::

    def k(x: Buffer((1, 8, 8, 32)), y: Buffer((1, 8, 8, 32))):   # root allocates t: Buffer((1, 10, 10, 32))
After::

    def k(x: handle, y: handle, t: handle) -> int32:             # calling_conv 2: no argument checks, no DLTensor

Memory that a kernel would allocate becomes one more pointer, so that the memory plan covers all of it.
Where: last pass on TIR; TVM's own lowering runs after it.
Not handled: shapes that are only known at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize

from bnn_deploy.plan import Launch

# tvm's CallingConv::kDeviceKernelLaunch: the code generator then leaves the parameters as they are.
_PLAIN = 2


@dataclass(frozen=True)
class RawKernel:
    """A kernel with pointer parameters.

    Attributes:
        function: the kernel.
        scratch_bytes: of each scratch buffer it takes after its tensors.
        takes_block: its last parameter is the index of a block of rows, int32.
        launches: what is launched for it on a GPU; () on processors.
    """

    function: tirx.PrimFunc
    scratch_bytes: tuple[int, ...]
    takes_block: bool = False
    launches: tuple[Launch, ...] = ()

    @property
    def symbol(self) -> str:
        """Its name in C."""
        return str(self.function.attrs["global_symbol"])


def raw_pointers(function: tirx.PrimFunc, symbol: str) -> RawKernel:
    """Run the pass on one scheduled kernel; it becomes the C symbol ``symbol``."""
    # Our own kernels keep their register tiles, which are private to a thread.
    own = function.attrs is not None and "bnn.kernel" in function.attrs
    body, allocated = (function.body, []) if own else _without_allocations(function.body)
    parameters, declarations = [], []
    integers = [parameter for parameter in function.params if isinstance(parameter.ty, tvm.ir.PrimType)]
    buffers = [parameter for parameter in function.params if not isinstance(parameter.ty, tvm.ir.PrimType)]
    for buffer in (*buffers, *allocated):
        pointer = tirx.Var(f"{buffer.name}_pointer", tvm.ir.PointerType(buffer.ty.dtype))
        parameters.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))
    parameters.extend(integers)
    raw = tirx.PrimFunc(parameters, tirx.SeqStmt([*declarations, body]), tvm.ir.PrimType("int32"), function.attrs)
    for name, value in {"global_symbol": symbol, "calling_conv": _PLAIN, "tirx.noalias": True}.items():
        raw = raw.with_attr(name, value)
    return RawKernel(raw, tuple(_bytes(buffer) for buffer in allocated), bool(integers))


def _without_allocations(body: tirx.Stmt) -> tuple[tirx.Stmt, list[tirx.Buffer]]:
    if not isinstance(body, SBlockRealize) or not body.block.alloc_buffers:
        return body, []
    root = body.block
    # What a GPU's schedule keeps in shared memory or registers stays the kernel's own.
    own = [buffer for buffer in root.alloc_buffers if buffer.scope() != "global"]
    if not own and not _is_block(root.body):
        return root.body, list(root.alloc_buffers)
    bare = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        root.body,
        root.init,
        own,
        root.match_buffers,
        root.annotations,
    )
    return SBlockRealize([], True, bare), [buffer for buffer in root.alloc_buffers if buffer.scope() == "global"]


def _is_block(statement: tirx.Stmt) -> bool:
    """Whether TVM has yet to lower it; a GPU's launches are plain statements."""
    found: list[SBlockRealize] = []
    tvm_ffi.structural_walk(statement, (SBlockRealize, found.append))
    return bool(found)


def _bytes(buffer: tirx.Buffer) -> int:
    return prod(int(extent) for extent in buffer.shape) * int(tvm.runtime.DataType(str(buffer.dtype)).itemsize)
