"""A float loop nest as one launch on a GPU: which of its points a thread has, and the loops and bindings around its body.

``tile_launch`` writes the nests of one store; those of several, as of an argmax, are done here as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from bnn_deploy.passes.tir.gpu_tile import Tile, row_axis, single_tile
from bnn_deploy.passes.tir.loop_nest import LoopNest


def launch_as_it_stands(nest: LoopNest) -> tirx.Stmt:
    """A body of several stores, as of an argmax: in memory, by one thread for each point, its terms in order."""
    launch = NestLaunch(nest, single_tile(nest.outputs))
    point = launch.point()
    body = launch.at(_without_threads(nest.block.body), nest.axes, point)
    for variable, extent in zip(reversed(nest.reduced), reversed(nest.terms), strict=True):
        body = launch.loop(variable, extent, body, tirx.ForKind.SERIAL)
    start = [] if nest.block.init is None else [launch.at(nest.block.init, nest.axes, point)]
    group, _ = launch.places()
    return launch.bound([tirx.Bind(launch.group, group), launch.guarded(sequence([*start, body]))])


class NestLaunch:
    """The threads of a launch.

    Attributes:
        nest: what they compute.
        tile: their shares.
        group: the number of the outputs that a thread has, out of ``groups``; ``row`` and ``column`` say which of these.
        block, thread: what a GPU numbers; there are ``blocks`` blocks, and threads for more than ``groups`` if ``beyond``.
    """

    def __init__(self, nest: LoopNest, tile: Tile) -> None:
        self.nest, self.tile = nest, tile
        self.dtype = str(nest.axes[0].ty.dtype) if nest.axes else "int32"
        self.block, self.thread = tirx.Var("block", "int32"), tirx.Var("thread", "int32")
        self.groups = nest.outputs // (tile.rows * tile.columns)
        self.blocks = ceil(self.groups / tile.groups)
        self.beyond = self.blocks * tile.groups > self.groups
        self.group = tirx.Var("group", self.dtype)
        self.row, self.column = tirx.Var("row", self.dtype), tirx.Var("column", self.dtype)

    def bound(self, parts: Sequence[tirx.Stmt]) -> tirx.Stmt:
        """The launch of what one thread does."""
        body = sequence(parts)
        for variable, tag, extent in (
            (self.thread, "threadIdx.x", self.tile.threads),
            (self.block, "blockIdx.x", self.blocks),
        ):
            whole = ir.Range.from_min_extent(T.int32(0), T.int32(extent))
            axis = tirx.IterVar(whole, variable, tirx.IterVar.ThreadIndex, tag)
            body = tirx.AttrStmt(axis, "thread_extent", T.int32(extent), body)
        return body

    def guarded(self, body: tirx.Stmt) -> tirx.Stmt:
        """``body`` for the threads that have outputs."""
        return tirx.IfThenElse(self.group < self.groups, body, None) if self.beyond else body

    def places(self) -> tuple[Expr, Expr]:
        """Which group of outputs a thread has, and which part of their terms."""
        tile, thread = self.tile, self.thread
        within, part = thread, T.int32(0)
        if tile.parts > 1:
            within = thread // tile.parts if tile.parts_first else thread % tile.groups
            part = thread % tile.parts if tile.parts_first else thread // tile.groups
        return T.Cast(self.dtype, self.block * tile.groups + within), part

    def point(self) -> list[Expr]:
        """The output of the tile at ``row`` and ``column``."""
        extents = list(self.nest.extents)
        if not extents:
            return []
        along = row_axis(self.nest.extents)
        extents[-1] //= self.tile.columns
        if along is not None:
            extents[along] //= self.tile.rows
        point = self.decoded(self.group, extents)
        if self.tile.columns > 1:
            point[-1] = point[-1] * self.tile.columns + self.column
        if along is not None and self.tile.rows > 1:
            point[along] = point[along] * self.tile.rows + self.row
        return point

    def decoded(self, flat: Expr, extents: Sequence[int]) -> list[Expr]:
        """The point of row-major axes at position ``flat``."""
        point: list[Expr] = []
        for number, extent in reversed(list(enumerate(extents))):
            if extent == 1:
                point.insert(0, self.whole(0))
                continue
            first = all(other == 1 for other in extents[:number])
            point.insert(0, flat if first else tirx.FloorMod(flat, self.whole(extent)))
            flat = tirx.FloorDiv(flat, self.whole(extent))
        return point

    def loop(self, variable: tirx.Var, extent: int, body: tirx.Stmt, kind: int) -> tirx.Stmt:
        """``body`` for each value of the variable; one of a single value is put in."""
        if extent == 1:
            zero = self.whole(0)
            return tvm_ffi.structural_map(body, (tirx.Var, lambda v: zero if v.same_as(variable) else v))
        fresh = tirx.Var(variable.name, variable.ty)
        body = tvm_ffi.structural_map(body, (tirx.Var, lambda v: fresh if v.same_as(variable) else v))
        return tirx.For(fresh, self.whole(0), self.whole(extent), kind, body)

    def at(self, value: tirx.Stmt | Expr, axes: Sequence[tirx.Var], point: Sequence[Expr]) -> tirx.Stmt | Expr:
        """``value`` with the axes at a point."""

        def place(variable: tirx.Var) -> Expr:
            return next((p for axis, p in zip(axes, point, strict=True) if axis.same_as(variable)), variable)

        return tvm_ffi.structural_map(value, (tirx.Var, place))

    def whole(self, value: int) -> Expr:
        """A whole number of the indices' type."""
        return tirx.IntImm(self.dtype, value)


def _without_threads(body: tirx.Stmt) -> tirx.Stmt:
    """Loops over a processor's threads as plain ones."""

    def serial(loop: tirx.For) -> tirx.For:
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(body, (tirx.For, serial))


def sequence(statements: Sequence[tirx.Stmt]) -> tirx.Stmt:
    """The statements one after the other, as one."""
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))
