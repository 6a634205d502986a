"""TIR expressions that are written alike for one lane and for many, and the few statement shorthands kernels share.

Kernels are built with TVM's IR builder rather than parsed from TVMScript: most loops exist only in some of the
variants, which plain Python says more plainly. ``--dump-ir`` prints the result as TVMScript.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer, PrimFunc
from tvm.tirx.script import builder as T

FLOAT = "float32"
WORD = "uint32"
INTEGER = "int32"
BYTE = "uint8"

Index: TypeAlias = Expr | int


def vector_type(element: str, lanes: int) -> str:
    """TVM's name of a vector of ``lanes`` elements."""
    return element if lanes == 1 else f"{element}x{lanes}"


def lanes_at(start: Index, lanes: int) -> Index:
    """Index of ``lanes`` neighbouring elements from ``start``."""
    return start if lanes == 1 else T.ramp(start, 1, lanes)


def spread(value: Expr, lanes: int) -> Expr:
    """``value`` in every lane."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def shuffled(vectors: Sequence[Expr], indices: Sequence[int]) -> Expr:
    """The elements at ``indices`` of all ``vectors`` in a row."""
    return tirx.Shuffle(list(vectors), [tirx.const(index, INTEGER) for index in indices])


def constant(value: float, element: str, lanes: int = 1) -> Expr:
    """The number ``value``, a whole one but for floats, in every lane."""
    return spread(T.FloatImm(element, value) if element == FLOAT else T.IntImm(element, int(value)), lanes)


def cast(value: Expr, element: str, lanes: int) -> Expr:
    """Convert every lane to ``element``."""
    return T.Cast(vector_type(element, lanes), value)


def fused_multiply_add(a: Expr, b: Expr, c: Expr, lanes: int) -> Expr:
    """``a * b + c`` rounded once: LLVM may or may not contract a product and a sum, and targets would then differ."""
    return T.call_llvm_pure_intrin(vector_type(FLOAT, lanes), "llvm.fma", a, b, c)


def rounded(value: Expr) -> Expr:
    """``value``, a product, rounded by itself: LLVM does not contract it with the sum that it goes into."""
    return T.call_llvm_pure_intrin(str(value.ty.dtype), "llvm.arithmetic.fence", value)


def popcount_bytes(bits: Expr, lanes: int) -> Expr:
    """Popcounts of the four bytes in each 32-bit lane: uint8 vector of ``4 * lanes``."""
    return T.popcount(T.reinterpret(vector_type(BYTE, 4 * lanes), bits))


def sum_of_bytes(counts: Expr, lanes: int) -> Expr:
    """The sum (int32) of the four bytes in each 32-bit lane of ``counts`` (uint8 vector of ``4 * lanes``)."""
    words = T.reinterpret(vector_type(WORD, lanes), counts)
    even_bytes = constant(0x00FF00FF, WORD, lanes)
    pairs = (words & even_bytes) + ((words >> constant(8, WORD, lanes)) & even_bytes)
    total = (pairs & constant(0xFFFF, WORD, lanes)) + (pairs >> constant(16, WORD, lanes))
    return cast(total, INTEGER, lanes)


def let(name: str, value: Index) -> Index:
    """Bind ``value`` to a variable, so that it is computed once and readable in dumps; plain numbers stay numbers."""
    if isinstance(value, int):
        return value
    variable = T.Bind(value)
    IRBuilder.name(name, variable)
    return variable


def registers(name: str, element: str, count: int) -> Buffer:
    """A small buffer that LLVM keeps in registers: all its indices must be constant once loops are unrolled."""
    buffer = T.alloc_buffer((count,), element)
    IRBuilder.name(name, buffer)
    return buffer


def view(name: str, buffer: Buffer, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> Buffer:
    """The same memory under another shape; ``strides`` in elements when its axes do not lie one in the other."""
    result = T.decl_buffer(shape, buffer.dtype, data=buffer.data, strides=strides)
    IRBuilder.name(name, result)
    return result


@contextmanager
def loop(name: str, extent: Index, kind: str = "serial", start: Index = 0) -> Iterator[Index]:
    """A loop of the given kind: ``serial``, ``unroll`` or ``parallel``."""
    with getattr(T, kind)(start, extent) as variable:
        IRBuilder.name(name, variable)
        yield variable


@contextmanager
def when(condition: Expr | bool) -> Iterator[None]:
    """Statements under a condition; nothing is emitted around them when it is already known to hold."""
    if condition is True:
        yield
        return
    with T.If(condition), T.Then():
        yield


@contextmanager
def primitive_function(**parameters: tuple[tuple[int, ...], str]) -> Iterator[tuple[IRBuilder, list[Buffer]]]:
    """A private function whose buffers are ``name=(shape, dtype)``; take it from the builder after the block."""
    with IRBuilder() as builder, T.prim_func(s_tir=True, private=True):
        yield builder, [T.arg(name, T.Buffer(shape, dtype)) for name, (shape, dtype) in parameters.items()]


def block_parameter() -> Expr:
    """The last parameter (int32) of a kernel that computes one block of rows: which block, counted over all images."""
    return T.arg("block", T.int32())


def finished(builder: IRBuilder) -> PrimFunc:
    """The function built, with the promise that its buffers do not overlap."""
    return builder.get().with_attr("tirx.noalias", True)
