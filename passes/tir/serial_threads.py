"""Turn the threads of a CUDA kernel into loops, so that a CPU can run it: the same indices, one thread after the other.

Before::

    for blockIdx.x, threadIdx.x:
        s = alloc_shared(128);  v = alloc_local(1)
        v[0] = x[threadIdx.x];  s[threadIdx.x] = v[0]
        bnn_barrier()
        y[threadIdx.x] = s[127 - threadIdx.x] + v[0]
After::

    for block in range(…):
        s = alloc(128);  v = alloc(128 * 1)                                  # a local buffer has one part for each thread
        for t in range(128): v[t] = x[t];  s[t] = v[t]                       # all threads up to the barrier,
        for t in range(128): y[t] = s[127 - t] + v[t]                        # then all threads from there

Functions of a warp are called once for each warp, on the registers of all its lanes (``targets/cuda/serial_functions.c``).
Unrolled loops become plain ones: registers are memory here, which any loop may index, and LLVM would work long on copies.
With ``descending``, threads run from the last to the first: a missing barrier shows as a difference between the two orders.
Where: instead of ``cuda_source``, on the same kernels; the tests of the GPU's kernels run what comes out.
Not handled: threads that meet where something decides that is not the same for all of them: ValueError.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad
from tvm.tirx.buffer import is_buffer_var
from tvm.tirx.script import builder as T

from bnn_deploy.passes.tir.launch_statements import flat, is_launch
from bnn_deploy.targets.cuda.device_functions import BLOCK_FUNCTIONS, WARP, WARP_FUNCTIONS

_SERIAL = tirx.ForKind.SERIAL
_ALIGNMENT = 64


def serial_threads(function: tirx.PrimFunc, descending: bool = False) -> tirx.PrimFunc:
    """Run the pass on one kernel; one without threads is returned as it is.

    Raises:
        ValueError: a barrier or a warp function stands where threads may not meet.
    """
    rolled = tvm_ffi.structural_map(function.body, [(tirx.For, _rolled)])
    body = _without_launches(rolled, descending)
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _rolled(loop: tirx.For) -> tirx.For:
    if loop.kind != tirx.ForKind.UNROLLED:
        return loop
    return tirx.For(loop.loop_var, loop.min, loop.extent, _SERIAL, loop.body)


def _without_launches(statement: tirx.Stmt, descending: bool) -> tirx.Stmt:
    if isinstance(statement, tirx.SeqStmt):
        return _sequence([_without_launches(part, descending) for part in statement.seq])
    return _Block(statement, descending).serial() if is_launch(statement) else statement


class _Block:
    """One launch: its block loops and its threads."""

    def __init__(self, launch: tirx.AttrStmt, descending: bool) -> None:
        self.descending = descending
        self.blocks: list[tuple[tirx.Var, int]] = []
        statement: tirx.Stmt = launch
        while is_launch(statement):
            variable, extent = statement.node.var, int(statement.value)
            if statement.node.thread_tag.startswith("blockIdx"):
                self.blocks.append((variable, extent))
            else:
                self.thread, self.threads = variable, extent
            statement = statement.body
        self.body = statement
        self.memories: list[_Memory] = []

    def serial(self) -> tirx.Stmt:
        """The loops that replace the launch."""
        statement = self._phases(self.body)
        for variable, extent in reversed(self.blocks):
            statement = tirx.For(variable, 0, extent, _SERIAL, statement)
        return statement

    def _phases(self, statement: tirx.Stmt) -> tirx.Stmt:
        """``statement`` for all threads of a block."""
        phases: list[tirx.Stmt] = []
        together: list[tirx.Stmt] = []  # what each thread does before the next one begins

        def close() -> None:
            if together:
                phases.append(self._for_each_thread(_sequence(together)))
                together.clear()

        for part in flat(statement):
            replaced = self._meeting(part)
            if replaced is None:
                together.append(part)
            else:
                close()
                phases.extend(replaced)
        close()
        return _sequence(phases)

    def _meeting(self, statement: tirx.Stmt) -> list[tirx.Stmt] | None:
        """What replaces a statement that is not done thread by thread; None for the others."""
        if isinstance(statement, tirx.AllocBuffer):
            return self._allocation(statement.buffer)
        if isinstance(statement, tirx.DeclBuffer):
            return [statement]
        if isinstance(statement, tirx.Bind):
            return self._binding(statement)
        if not _meets(statement):
            return None
        if isinstance(statement, tirx.Evaluate):
            name = _extern(statement.value)
            return [statement if name in BLOCK_FUNCTIONS else self._for_each_warp(name, statement.value.args[1:])]
        if isinstance(statement, tirx.For):
            self._require_uniform(statement.min, statement.extent)
            body = self._phases(statement.body)
            return [tirx.For(statement.loop_var, statement.min, statement.extent, _SERIAL, body)]
        if isinstance(statement, tirx.IfThenElse):
            self._require_uniform(statement.condition)
            other = None if statement.else_case is None else self._phases(statement.else_case)
            return [tirx.IfThenElse(statement.condition, self._phases(statement.then_case), other)]
        raise ValueError(f"Threads cannot meet in a {type(statement).__name__}.")

    def _allocation(self, buffer: tirx.Var) -> list[tirx.Stmt]:
        if buffer.scope() == "local":
            return self._registers(buffer, str(buffer.dtype), int(buffer.shape[0]))
        return self._memory(buffer, tuple(int(extent) for extent in buffer.shape), str(buffer.dtype), None)

    def _binding(self, binding: tirx.Bind) -> list[tirx.Stmt]:
        if not self._varies(binding.value):
            return [binding]
        # Every thread has its own value, which may be read after the next barrier.
        declared = self._registers(binding.var, str(binding.var.ty.dtype), 1)
        store = tirx.BufferStore(self.memories[-1].memory, binding.value, [self.thread])
        return [*declared, self._for_each_thread(store)]

    def _registers(self, of: tirx.Var, dtype: str, count: int) -> list[tirx.Stmt]:
        return self._memory(of, (self.threads * count,), dtype, count)

    def _memory(self, of: tirx.Var, shape: tuple[int, ...], dtype: str, count: int | None) -> list[tirx.Stmt]:
        """Memory from ``serial_functions.c``, anew for each block: TVM would put large buffers on the stack."""
        name = of.name or "memory"
        pointer = tirx.Var(f"{name}_pointer", tvm.ir.PointerType(tvm.ir.PrimType(dtype)))
        size = prod(shape) * tvm.runtime.DataType(dtype).itemsize
        address = T.call_extern(pointer.ty, "bnn_block_memory", T.int32(len(self.memories)), T.int64(size))
        memory = tirx.decl_buffer(shape, dtype, name, data=pointer, data_alignment=_ALIGNMENT)
        self.memories.append(_Memory(of, memory, count))
        return [tirx.Bind(pointer, address), tirx.DeclBuffer(memory, data=pointer)]

    def _found(self, of: object) -> _Memory | None:
        return next((r for r in self.memories if r.of.same_as(of)), None)

    def _own(self, of: object) -> _Memory:
        """What stands for a buffer that the launch allocates."""
        found = self._found(of)
        assert found is not None, f"{of} is allocated outside of the launch"
        return found

    def _for_each_thread(self, body: tirx.Stmt) -> tirx.Stmt:
        index = tirx.Var("thread", "int32")
        # ~index is -1 - index. Written so because TVM 0.27 simplifies quotients and remainders of 31 - index wrongly.
        thread = T.int32(self.threads) + T.bitwise_xor(index, T.int32(-1)) if self.descending else index
        return tirx.For(index, 0, self.threads, _SERIAL, self._of_thread(body, thread))

    def _for_each_warp(self, name: str, places: list[Expr]) -> tirx.Stmt:
        warp = tirx.Var("warp", "int32")
        arguments: list[Expr] = []
        for place in places:
            load = place.args[0]
            self._require_uniform(*load.indices)
            arguments += [self._of_thread(place, warp * WARP), T.int64(self._own(load.source).count)]
        call = tirx.Evaluate(T.call_extern("void", name, *arguments))
        return tirx.For(warp, 0, self.threads // WARP, _SERIAL, call)

    def _of_thread(self, node: tirx.Stmt | Expr, thread: Expr) -> tirx.Stmt | Expr:
        """``node`` as ``thread`` does it: with its part of what the threads have."""

        def load(value: TensorLoad) -> Expr:
            found = self._found(value.source)
            return value if found is None else found.memory[found.place(list(value.indices), thread)]

        def store(value: tirx.BufferStore) -> tirx.Stmt:
            found = self._found(value.buffer)
            if found is None:
                return value
            return tirx.BufferStore(found.memory, value.value, found.place(list(value.indices), thread))

        def variable(value: tirx.Var) -> Expr:
            if value.same_as(self.thread):
                return thread
            found = self._found(value)
            return value if found is None or is_buffer_var(value) else found.memory[found.place([0], thread)]

        def note(allocation: tirx.AllocBuffer) -> None:
            # Registers between two meetings: they need no place of their own for each thread.
            buffer = allocation.buffer
            memory = tirx.decl_buffer(buffer.shape, buffer.dtype, buffer.name)
            self.memories.append(_Memory(buffer, memory, None))

        def allocation(value: tirx.AllocBuffer) -> tirx.Stmt:
            return tirx.AllocBuffer(self._own(value.buffer).memory)

        tvm_ffi.structural_walk(node, (tirx.AllocBuffer, note))
        callbacks = [
            (TensorLoad, load),
            (tirx.BufferStore, store),
            (tirx.AllocBuffer, allocation),
            (tirx.Var, variable),
        ]
        return tvm_ffi.structural_map(node, callbacks)

    def _varies(self, value: Expr) -> bool:
        """Whether threads of one block may have different values."""
        found: list[object] = []

        def visit(part: Expr) -> None:
            if part.same_as(self.thread) or self._found(part) is not None:
                found.append(part)

        tvm_ffi.structural_walk(value, (tirx.Var, visit))
        return bool(found)

    def _require_uniform(self, *values: Expr) -> None:
        for value in values:
            if not isinstance(value, int) and self._varies(value):
                raise ValueError(f"Threads cannot meet where {value} decides, which is not the same for all of them.")


@dataclass(frozen=True)
class _Memory:
    """What each thread has of a local buffer or a variable; or, if ``count`` is None, memory that all threads share."""

    of: tirx.Var
    memory: tirx.Buffer
    count: int | None

    def place(self, indices: list[Expr], thread: Expr) -> list[Expr]:
        """Indices into ``memory`` of the element at ``indices`` that belongs to ``thread``."""
        return indices if self.count is None else [thread * self.count + indices[0]]


def _sequence(statements: list[tirx.Stmt]) -> tirx.Stmt:
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def _extern(value: Expr) -> str:
    """The C function that a call is of, "" if none."""
    if isinstance(value, Call) and getattr(value.op, "name", "") == "tirx.call_extern":
        return str(value.args[0].value)
    return ""


def _meets(statement: tirx.Stmt) -> bool:
    """Whether threads meet in it."""
    found: list[Call] = []

    def visit(call: Call) -> None:
        if _extern(call) in (*BLOCK_FUNCTIONS, *WARP_FUNCTIONS):
            found.append(call)

    tvm_ffi.structural_walk(statement, (Call, visit))
    return bool(found)
