"""Write a float loop nest of one store, and what its results go through, thread by thread: one launch on a GPU.

Every thread computes a tile of outputs in registers. Its loads and stores of neighbours are one instruction of up to 128 bits
where the index allows; loads under a condition, as of padding, stay single. See ``schedule_gpu`` for what comes out.
"""

from __future__ import annotations

from math import ceil, prod

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad
from tvm.sym import Analyzer
from tvm.tirx.script import builder as T

from bnn_deploy.passes.tir.gpu_tile import Tile
from bnn_deploy.passes.tir.loop_nest import StoreNest, loads_of
from bnn_deploy.passes.tir.nest_launch import NestLaunch, sequence
from bnn_deploy.passes.tir.rounded_products import fused_operands

_COMBINATIONS: tuple[type[Expr], ...] = (tirx.Add, tirx.Max, tirx.Min)
# Vectors of these are loads and stores of CUDA.
_VECTOR_TYPES = ("float32", "int32", "uint32")


def sums_split(nest: StoreNest) -> bool:
    """Whether sums of parts of the terms can be added up afterwards."""
    store, initial = nest.store, nest.block.init
    combine = _combination(store.value) if isinstance(initial, tirx.BufferStore) else None
    if combine is None:
        return False
    sides = fused_operands(store.value) or (store.value.a, store.value.b)
    own = [side for side in sides if _is_load_of(side, store.buffer)]
    return len(own) == 1 and (combine is not tirx.Add or _is_zero(initial.value))


class TileLaunch(NestLaunch):
    """One launch: a nest, and perhaps another one that reads each of its results once, at its own point."""

    nest: StoreNest

    def __init__(self, nest: StoreNest, after: StoreNest | None, tile: Tile) -> None:
        super().__init__(nest, tile)
        self.after = after
        self.analyzer = Analyzer()
        self.totals = self._registers("totals", str(nest.store.buffer.dtype), tile.rows * tile.columns)

    def statement(self) -> tirx.Stmt:
        """The launch."""
        group, part = self.places()
        if self.tile.parts == 1:
            sums = [tirx.AllocBuffer(self.totals), *self._sums(None)] if self.nest.reduced else []
            return self.bound([tirx.Bind(self.group, group), self.guarded(sequence([*sums, self._stores()]))])
        # All threads meet at barriers: those beyond the last group compute its sums once more, and store nothing.
        first = tirx.And(part == 0, group < self.groups) if self.beyond else part == 0
        return self.bound(
            [
                tirx.Bind(self.group, T.min(group, self.whole(self.groups - 1)) if self.beyond else group),
                tirx.AllocBuffer(self.totals),
                *self._sums(part),
                *self._tree(part),
                tirx.IfThenElse(first, self._stores(), None),
            ]
        )

    def _sums(self, part: Expr | None) -> list[tirx.Stmt]:
        """Add the terms up in registers: all of them, or every ``parts``-th one from ``part`` on."""
        nest, place = self.nest, self._place()
        initial = self.at(nest.block.init.value, nest.axes, self.point())
        start = self._over_tile(tirx.BufferStore(self.totals, initial, [place]))
        if part is None:
            body = self._over_tile(*self._addition(list(nest.reduced)))
            for variable, extent in zip(reversed(nest.reduced), reversed(nest.terms), strict=True):
                body = self.loop(variable, extent, body, tirx.ForKind.SERIAL)
            return [start, body]
        terms, step = prod(nest.terms), tirx.Var("step", self.dtype)
        term = step * self.tile.parts + T.Cast(self.dtype, part)
        body = self._over_tile(*self._addition(self.decoded(term, nest.terms)))
        if terms % self.tile.parts:
            body = tirx.IfThenElse(term < terms, body, None)
        return [start, self.loop(step, ceil(terms / self.tile.parts), body, tirx.ForKind.SERIAL)]

    def _addition(self, term: list[Expr]) -> tuple[list[tirx.Stmt], list[tirx.Stmt]]:
        """Loads for a row of the tile, and the addition of one term to each of its totals."""
        nest = self.nest
        value = self.at(nest.store.value, (*nest.axes, *nest.reduced), [*self.point(), *term])
        loads, value = self._loaded(self._with_total(value, nest.store.buffer))
        return loads, [tirx.BufferStore(self.totals, value, [self._place()])]

    def _tree(self, part: Expr) -> list[tirx.Stmt]:
        """Add the parts' sums: those of the upper half of the threads to those of the lower half, and again."""
        tile, count = self.tile, self.tile.rows * self.tile.columns
        shared = tirx.decl_buffer((count * tile.threads,), str(self.totals.dtype), "shared", scope="shared")
        combine = _combination(self.nest.store.value)
        assert combine is not None, "only sums that sums_split allows have parts"
        distance = 1 if tile.parts_first else tile.groups

        def slot(number: int, further: int = 0) -> Expr:
            return self.thread + (number * tile.threads + further)

        barrier = tirx.Evaluate(T.call_extern("void", "bnn_barrier"))
        own = [tirx.BufferStore(shared, self.totals[n], [slot(n)]) for n in range(count)]
        statements: list[tirx.Stmt] = [tirx.AllocBuffer(shared), *own, barrier]
        half = tile.parts // 2
        while half:
            added = [
                tirx.BufferStore(shared, combine(shared[slot(n)], shared[slot(n, half * distance)]), [slot(n)])
                for n in range(count)
            ]
            statements.append(tirx.IfThenElse(part < half, sequence(added), None))
            half //= 2
            statements += [barrier] if half else []  # what the last step leaves, only its own threads read
        return [*statements, *(tirx.BufferStore(self.totals, shared[slot(n)], [T.int32(n)]) for n in range(count))]

    def _stores(self) -> tirx.Stmt:
        """Compute what is stored, and store it."""
        last = self.after or self.nest
        point = self.point()
        if self.after is None and self.nest.reduced:
            value = self.totals[self._place()]
        else:
            value = self.at(last.store.value, last.axes, point)
            value = self._with_total(value, self.nest.store.buffer) if self.after is not None else value
        loads, value = self._loaded(value)
        indices = [self.at(index, last.axes, point) for index in last.store.indices]
        buffer, columns = last.store.buffer, self.tile.columns
        wide = self._wide(buffer, indices)
        if wide is None:
            return self._over_tile(loads, [tirx.BufferStore(buffer, value, indices)])
        results = self._registers("results", str(buffer.dtype), columns)
        together = results[T.ramp(T.int32(0), 1, columns)]
        return self._over_tile(
            [tirx.AllocBuffer(results), *loads],
            [tirx.BufferStore(results, value, [T.Cast("int32", self.column)])],
            [tirx.BufferStore(buffer, together, wide)],
        )

    def _over_tile(self, *parts: tirx.Stmt | list[tirx.Stmt]) -> tirx.Stmt:
        """For every row: what is done once, what is done for every column, what is done once again."""
        before, each, behind = {1: ([], parts[0], []), 2: (*parts, []), 3: parts}[len(parts)]
        each = [each] if isinstance(each, tirx.Stmt) else each
        inner = self.loop(self.column, self.tile.columns, sequence(each), tirx.ForKind.UNROLLED)
        return self.loop(self.row, self.tile.rows, sequence([*before, inner, *behind]), tirx.ForKind.UNROLLED)

    def _loaded(self, value: Expr) -> tuple[list[tirx.Stmt], Expr]:
        """Statements that load neighbours at once, and ``value`` that reads them from registers."""
        if self.tile.columns == 1:
            return [], value
        found: list[tuple[TensorLoad, tirx.Buffer, list[Expr]]] = []
        for load in loads_of(_without_choices(value)):
            if load.source.same_as(self.totals) or any(tvm_ffi.structural_equal(load, other) for other, _, _ in found):
                continue
            wide = self._wide(load.source, list(load.indices))
            if wide is not None:
                name = f"{load.source.name}_columns"
                found.append((load, self._registers(name, str(load.source.dtype), self.tile.columns), wide))

        def from_registers(load: TensorLoad) -> Expr:
            for other, memory, _ in found:
                if tvm_ffi.structural_equal(load, other):
                    return memory[T.Cast("int32", self.column)]
            return load

        statements: list[tirx.Stmt] = []
        for load, memory, wide in found:
            all_columns = [T.ramp(T.int32(0), 1, self.tile.columns)]
            statements += [
                tirx.AllocBuffer(memory),
                tirx.BufferStore(memory, load.source[tuple(wide)], all_columns),
            ]
        return statements, tvm_ffi.structural_map(value, (TensorLoad, from_registers))

    def _wide(self, buffer: tirx.Buffer, indices: list[Expr]) -> list[Expr] | None:
        """Indices of all columns, if these are neighbours in memory that begin at a multiple of their number."""
        columns = self.tile.columns
        if columns == 1 or not indices or str(buffer.dtype) not in _VECTOR_TYPES or buffer.strides:
            return None
        if int(buffer.shape[-1]) % columns or any(self._depends(index) for index in indices[:-1]):
            return None
        zero = self.whole(0)
        first = tvm_ffi.structural_map(indices[-1], (tirx.Var, lambda v: zero if v.same_as(self.column) else v))
        first = self.analyzer.simplify(first)
        if not self._depends(indices[-1]) or not self.analyzer.can_prove(indices[-1] - first == self.column):
            return None
        if not self.analyzer.can_prove_equal(tirx.FloorMod(first, self.whole(columns)), 0):
            return None
        return [*indices[:-1], T.ramp(first, 1, columns)]

    def _depends(self, value: Expr) -> bool:
        found: list[tirx.Var] = []
        tvm_ffi.structural_walk(value, (tirx.Var, lambda v: found.append(v) if v.same_as(self.column) else None))
        return bool(found)

    def _place(self) -> Expr:
        return T.Cast("int32", self.row * self.tile.columns + self.column)

    def _with_total(self, value: Expr, buffer: tirx.Buffer) -> Expr:
        def load(read: TensorLoad) -> Expr:
            return self.totals[self._place()] if read.source.same_as(buffer) else read

        return tvm_ffi.structural_map(value, (TensorLoad, load))

    def _registers(self, name: str, dtype: str, count: int) -> tirx.Buffer:
        return tirx.decl_buffer((count,), dtype, name, scope="local")


def _without_choices(value: Expr) -> Expr:
    """``value`` less what is computed only under a condition."""

    def cut(call: Call) -> Expr:
        return T.Cast(str(call.ty.dtype), T.int32(0)) if getattr(call.op, "name", "") == "prim.if_then_else" else call

    return tvm_ffi.structural_map(value, (Call, cut))


def _combination(value: Expr) -> type[Expr] | None:
    """What puts a reduction's terms together; None if it is none of those that can be split."""
    is_sum = fused_operands(value) is not None
    return next((kind for kind in _COMBINATIONS if isinstance(value, kind) or (is_sum and kind is tirx.Add)), None)


def _is_load_of(value: Expr, buffer: tirx.Buffer) -> bool:
    return isinstance(value, TensorLoad) and value.source.same_as(buffer)


def _is_zero(value: Expr) -> bool:
    return isinstance(value, (tirx.FloatImm, tirx.IntImm)) and float(value.value) == 0
