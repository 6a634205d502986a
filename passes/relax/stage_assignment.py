"""Which stage of ``block_rows`` each operator belongs to, and what a stage computes again rather than store."""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import (
    count_uses,
    is_constant,
    main_bindings,
    operator_name,
    read_variables,
    readers_of,
    static_shape,
)
from bnn_deploy.passes.relax.row_rules import ROWS_AXIS, Rows, is_elementwise, row_reads

_CHEAP = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide")


@dataclass
class Group:
    """The operators of one stage, in order."""

    level: int
    variables: list[relax.Var] = field(default_factory=list)


class StageAssignment:
    """Assigns each binding to a stage or to ``main``, and a level: main's operators of a level run before its stages."""

    def __init__(self, module: tvm.IRModule) -> None:
        main = module["main"]
        self.values: dict[relax.Var, relax.Expr] = {binding.var: binding.value for binding in main_bindings(main)}
        self.readers = readers_of(self.values)
        self.uses = count_uses(main)
        self.output = main.body.body
        self.level: dict[relax.Var, int] = {}
        self.group: dict[relax.Var, Group] = {}
        self.reads: dict[relax.Var, list[tuple[relax.Var, Rows]]] = {}  # of those in a group
        self.recomputed: set[relax.Var] = set()
        self._assign()
        self._choose_recomputed()

    def _assign(self) -> None:
        for variable, value in self.values.items():
            reads = self._joins(variable, value)
            if reads is None:
                read = [v for v in read_variables(value) if v in self.level]
                self.level[variable] = max((self.level[v] + (v in self.group) for v in read), default=0)
            else:
                self._place(variable, reads)

    def _joins(self, variable: relax.Var, value: relax.Expr) -> list[tuple[relax.Var, Rows]] | None:
        reads = row_reads(value)
        if not reads or static_shape(variable)[ROWS_AXIS] < 2:
            return None
        # What follows a float convolution or pooling is computed on its registers.
        if is_elementwise(value) and len(reads) == 1:
            source = reads[0][0]
            computed = source in self.values and source not in self.group
            if computed and self.uses[source] == 1 and not _only_moves(self.values[source]):
                return None
        return reads

    def _place(self, variable: relax.Var, reads: list[tuple[relax.Var, Rows]]) -> None:
        level = max(
            (self.level[v] + (v in self.group and how is not Rows.SHARE) for v, how in reads if v in self.level),
            default=0,
        )
        self.level[variable], self.reads[variable] = level, reads
        joined = {
            id(self.group[v]): self.group[v]
            for v, how in reads
            if how is Rows.SHARE and v in self.group and self.level[v] == level
        }
        group = Group(level)
        for other in joined.values():
            group.variables.extend(other.variables)
        group.variables.append(variable)
        for member in group.variables:
            self.group[member] = group

    def is_stored(self, variable: relax.Var) -> bool:
        """Whether anything outside its stage needs the variable as a whole."""
        if variable in self.recomputed:
            return False
        return variable.same_as(self.output) or any(
            group is not self.group[variable] for group in self.reading_groups(variable)
        )

    def reading_groups(self, variable: relax.Var) -> list[Group | None]:
        """The stages (None: main) that read the variable, directly or by computing again what is made of it."""
        groups = []
        for reader in self.readers.get(variable, []):
            groups.append(self.group.get(reader))
            if reader in self.recomputed:
                groups.extend(self.reading_groups(reader))
        return groups

    def _choose_recomputed(self) -> None:
        # Consumers first: what they compute again decides what must be stored before them.
        for variable in reversed(self.group):
            if self.is_stored(variable) and self._is_worth_recomputing(variable):
                self.recomputed.add(variable)

    def _is_worth_recomputing(self, variable: relax.Var) -> bool:
        value = self.values[variable]
        shares = [v for v, how in self.reads[variable] if how is Rows.SHARE]
        if operator_name(value) not in _CHEAP or len(shares) != 1 or variable.same_as(self.output):
            return False
        readers = self.readers.get(variable, [])
        elsewhere = [r for r in readers if self.group.get(r) is not self.group[variable]]
        if not all(r in self.group and (variable, Rows.SHARE) in self.reads[r] for r in elsewhere):
            return False
        source = shares[0]
        at_hand = source not in self.group or self.group[source] is not self.group[variable] or self.is_stored(source)
        return at_hand or len(elsewhere) == len(readers)

    def members(self, group: Group) -> list[relax.Var]:
        """What one stage computes, in order: its own variables that something needs, and what it computes again."""
        order = {variable: index for index, variable in enumerate(self.values)}
        needed: set[relax.Var] = set()

        def need(variable: relax.Var) -> None:
            if variable in needed:
                return
            needed.add(variable)
            for read, how in self.reads[variable]:
                own = self.group.get(read) is group
                if how is Rows.SHARE and read in self.group and (own or read in self.recomputed):
                    need(read)

        for variable in group.variables:
            if self.is_stored(variable):
                need(variable)
        return sorted(needed, key=lambda v: order[v])

    def groups(self) -> list[Group]:
        """Every stage once."""
        return list({id(group): group for group in self.group.values()}.values())


def _only_moves(value: relax.Expr) -> bool:
    names = ("relax.permute_dims", "relax.reshape", "relax.strided_slice", "relax.concat", "relax.expand_dims")
    return operator_name(value) in names or is_constant(value) or not isinstance(value, relax.Call)
