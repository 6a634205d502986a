"""What float kernels are built in: parameters that a network's own operator has, and indices of 64 bits as it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer, IntImm
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import Index

# The value to store, from (n, row, column, channel) and the accumulator there; the channel runs over a vectorised loop.
Epilogue: TypeAlias = Callable[[tuple[Index, Index, Index, Index], Expr], Expr]


@contextmanager
def kernel_over(parameters: Sequence[Buffer]) -> Iterator[IRBuilder]:
    """A private function of these buffers; take it from the builder after the block."""
    with IRBuilder() as builder, T.prim_func(s_tir=True, private=True):
        for parameter in parameters:
            T.arg(parameter.name, parameter)
        yield builder


def whole_view(name: str, buffer: Buffer, shape: tuple[int, ...]) -> Buffer:
    """The same memory under another shape."""
    result = T.decl_buffer([whole(extent) for extent in shape], buffer.dtype, data=buffer.data)
    IRBuilder.name(name, result)
    return result


def whole(value: int) -> IntImm:
    """A number for indices."""
    return IntImm("int64", value)
