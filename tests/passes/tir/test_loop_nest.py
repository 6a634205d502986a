"""loop_nest: loops over all points of a block are a nest; loops over some, or over other ones, are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tvm import relax, s_tir, tirx
from tvm.ir import Expr

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.loop_nest import read_nest
from tests.passes.networks import build

SIZE = 4

Change = Callable[[list[tirx.For], list[Expr]], tuple[list[tirx.For], list[Expr]]]


def changed(change: Change) -> tirx.Stmt:
    """The loops of ``abs`` over a square, after ``change`` of the loops and of what they make the block's axes."""
    module = fuse_float(build([(SIZE, SIZE)], lambda emit, x: relax.op.abs(x)))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    statement, loops = function.body.block.body, []
    while isinstance(statement, tirx.For):
        loops.append(statement)
        statement = statement.body
    loops, values = change(loops, list(statement.iter_values))
    statement = s_tir.SBlockRealize(values, statement.predicate, statement.block)
    for loop in reversed(loops):
        statement = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, statement)
    return statement


def over(loop: tirx.For, first: int, count: int) -> tirx.For:
    """The loop with other bounds."""
    return tirx.For(loop.loop_var, first, count, loop.kind, loop.body)


def test_loops_over_all_points_are_a_nest() -> None:
    """Breaks if a GPU computes too few or too many elements of an operator."""
    nest = read_nest(changed(lambda loops, values: (loops, values)))
    assert nest is not None and (nest.extents, nest.terms, nest.outputs) == ((SIZE, SIZE), (), SIZE**2)
    assert nest.store is not None and nest.is_at_point(list(nest.store.indices))
    assert not nest.is_at_point(list(nest.store.indices)[::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda loops, values: (loops, values[::-1]),
        lambda loops, values: (loops, [values[0], values[1] + 1]),
        lambda loops, values: ([over(loops[0], 1, SIZE), loops[1]], values),
        lambda loops, values: ([loops[0], over(loops[1], 0, SIZE - 1)], values),
        lambda loops, values: (loops[:1], [values[0], tirx.IntImm(str(values[1].ty.dtype), 0)]),
    ],
    ids=["transposed", "moved", "from the second on", "all but the last", "one column"],
)
def test_other_loops_are_not(change: Change) -> None:
    """Breaks if a GPU computes all points of a block whose loops run over some, or in another order."""
    assert read_nest(changed(change)) is None


def test_more_than_the_loops_of_a_block_is_none() -> None:
    """Breaks if an operator that a GPU has no schedule for ends in a traceback, or memory that its block has is lost."""
    loops: list[tirx.For] = []

    def kept(found: list[tirx.For], values: list[Expr]) -> tuple[list[tirx.For], list[Expr]]:
        loops.extend(found)
        return [], values

    realize = changed(kept)
    assert read_nest(tirx.SeqStmt([realize, realize])) is None
    block = realize.block
    parts = (block.iter_vars, block.reads, block.writes, block.name_hint, block.body, block.init)
    own = tirx.decl_buffer((SIZE,), "float32", "own")
    for keeps in ([own], []):
        statement = s_tir.SBlockRealize(realize.iter_values, realize.predicate, s_tir.SBlock(*parts, keeps))
        for loop in reversed(loops):
            statement = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, statement)
        assert (read_nest(statement) is None) == bool(keeps)
