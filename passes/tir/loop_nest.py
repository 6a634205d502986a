"""A loop nest of a float kernel, read as what it computes: a store for every point of some axes, which sums over others."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr, TensorLoad


@dataclass(frozen=True)
class LoopNest:
    """One loop nest.

    Attributes:
        block: its body.
        axes, extents: one point of them is computed apart from all others; row-major.
        reduced, terms: axes whose points are taken one after the other.
    """

    block: s_tir.SBlock
    axes: tuple[tirx.Var, ...]
    extents: tuple[int, ...]
    reduced: tuple[tirx.Var, ...]
    terms: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Points of the axes."""
        return prod(self.extents)

    def is_at_point(self, indices: list[Expr]) -> bool:
        """Whether indices are the axes; an axis of extent 1 may be indexed by 0."""
        if len(indices) != len(self.axes):
            return False
        return all(
            index.same_as(axis) or (extent == 1 and isinstance(index, tirx.IntImm) and int(index.value) == 0)
            for index, axis, extent in zip(indices, self.axes, self.extents, strict=True)
        )


@dataclass(frozen=True)
class StoreNest(LoopNest):
    """A loop nest whose body is one store."""

    @property
    def store(self) -> tirx.BufferStore:
        """The body."""
        return self.block.body


def read_nest(statement: tirx.Stmt) -> LoopNest | None:
    """The nest that a statement is; None if it is more than loops over all points of one block."""
    loops: list[tirx.For] = []
    while isinstance(statement, tirx.For):
        loops.append(statement)
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize) or statement.block.alloc_buffers or statement.block.match_buffers:
        return None
    variables, block = statement.block.iter_vars, statement.block
    kinds = {int(variable.iter_type) for variable in variables}
    whole = len(variables) == len(loops) and all(
        value.same_as(loop.loop_var) and int(loop.min) == 0 and int(loop.extent) == int(variable.dom.extent)
        for value, loop, variable in zip(statement.iter_values, loops, variables, strict=True)
    )
    if not whole or not kinds <= {tirx.IterVar.DataPar, tirx.IterVar.CommReduce}:
        return None
    apart = [variable for variable in variables if int(variable.iter_type) == tirx.IterVar.DataPar]
    summed = [variable for variable in variables if int(variable.iter_type) == tirx.IterVar.CommReduce]
    kind = StoreNest if isinstance(block.body, tirx.BufferStore) else LoopNest
    return kind(
        block,
        tuple(variable.var for variable in apart),
        tuple(int(variable.dom.extent) for variable in apart),
        tuple(variable.var for variable in summed),
        tuple(int(variable.dom.extent) for variable in summed),
    )


def loads_of(node: tirx.Stmt | Expr) -> list[TensorLoad]:
    """All that it reads."""
    found: list[TensorLoad] = []
    tvm_ffi.structural_walk(node, (TensorLoad, found.append))
    return found
