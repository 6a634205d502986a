"""Cut the network into stages that run block of rows by block of rows, so that what their operators hand on stays in L1/L2.

Before::

    y = bnn.packed_conv2d(p, …): (1, 56, 56, 128)     # 3x3
    z = add(y, x);  a = nn.prelu(z, slope);  q = bnn.sign_pack(a, t);  o = bnn.packed_conv2d(q, …)     # 1x1
After::

    a, o = call_dps_packed("stage_3", (p, x))
    stage_3, for each of 28 blocks of 2 rows (p whole, x: (1, 2, 56, 128)):
        y = bnn.packed_conv2d(p, …): (1, 2, 56, 128);  z = add(y, x);  a = …;  q = …;  o = …

A binary layer is so fast that memory decides: unfused, every elementwise operator between two layers writes and reads whole
images. Here each stage is a little network over a few rows; only what another stage reads (``a`` and ``o`` above) is ever
stored as a whole. A stage ends where an operator needs rows that are not computed yet: a 3x3 convolution, a global average.
Which stage: the earliest one after everything an operator reads; ``row_rules`` says which operators may join. A sum or product
with constants that later stages read is computed again there rather than stored, if what it is made of is stored anyway.
Where: after ``pack``, before kernels are chosen, so that stages are lowered, fused and planned like any network.
Not handled: operators on anything but images of at least two rows; they run by themselves, between stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd, prod

import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.dialect.values import values_of, with_values
from bnn_deploy.passes.relax.expressions import (
    count_uses,
    is_constant,
    layer_identifier,
    main_bindings,
    operator_name,
    read_variables,
    static_shape,
)
from bnn_deploy.passes.relax.row_rules import ROWS_AXIS, Rows, is_elementwise, row_reads

# What a block's tensors may take together: with the weights within L2, and mostly within L1. BiMLP-S took 7.1 ms with 96 KiB
# and 10.8 with 192; BCDNet-A takes the same from 48 KiB to 1 MiB.
BLOCK_BYTES = 64 * 1024
_ITEM_BYTES = 4
_CHEAP = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide")


@dataclass(frozen=True)
class RowStage:
    """Operators that run together on one block of rows after the other.

    Attributes:
        module: ``main`` computes one block; its parameters are as in ``reads``.
        blocks: blocks of all images together.
        blocks_per_image: blocks of one image.
        reads: how each parameter is taken from the whole tensor.
    """

    module: tvm.IRModule
    blocks: int
    blocks_per_image: int
    reads: tuple[Rows, ...]


@dataclass(frozen=True)
class StagedNetwork:
    """``main`` calls stages by name (call_dps_packed), and operators that belong to none."""

    main: tvm.IRModule
    stages: dict[str, RowStage]

    def script(self) -> str:
        """The text of all functions, for ``--dump-ir``."""
        parts = [self.main.script()]
        for name, stage in self.stages.items():
            parts.append(f"# {name}: {stage.blocks} blocks\n{stage.module.script()}")
        return "\n\n".join(parts)


def block_rows(module: tvm.IRModule) -> StagedNetwork:
    """Run the pass; see the module's docstring."""
    graph = _Graph(module)
    return _Builder(module, graph).build()


@dataclass
class _Group:
    """The operators of one stage, in order."""

    level: int
    variables: list[relax.Var] = field(default_factory=list)


class _Graph:
    """Assigns each binding to a stage or to ``main``, and a level: main's operators of a level run before its stages."""

    def __init__(self, module: tvm.IRModule) -> None:
        main = module["main"]
        self.bindings = main_bindings(main)
        self.values = {binding.var: binding.value for binding in self.bindings}
        self.uses = count_uses(main)
        self.output = main.body.body
        self._assign()
        self._choose_recomputed()

    def _assign(self) -> None:
        self.level: dict[relax.Var, int] = {}
        self.group: dict[relax.Var, _Group] = {}
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
        self.level[variable] = level
        joined = {
            id(self.group[v]): self.group[v]
            for v, how in reads
            if how is Rows.SHARE and v in self.group and self.level[v] == level
        }
        group = _Group(level)
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

    def reading_groups(self, variable: relax.Var) -> list[_Group | None]:
        """The stages (None: main) that read the variable, directly or by computing again what is made of it."""
        groups = []
        for reader in self.readers(variable):
            groups.append(self.group.get(reader))
            if reader in self.recomputed:
                groups.extend(self.reading_groups(reader))
        return groups

    def _choose_recomputed(self) -> None:
        self.recomputed: set[relax.Var] = set()
        # Consumers first: what they compute again decides what must be stored before them.
        for variable in reversed(self.group):
            if self.is_stored(variable) and self._is_worth_recomputing(variable):
                self.recomputed.add(variable)

    def _is_worth_recomputing(self, variable: relax.Var) -> bool:
        value = self.values[variable]
        shares = [v for v, how in row_reads(value) if how is Rows.SHARE]
        if operator_name(value) not in _CHEAP or len(shares) != 1 or variable.same_as(self.output):
            return False
        elsewhere = [r for r in self.readers(variable) if self.group.get(r) is not self.group[variable]]
        if not all(r in self.group and (variable, Rows.SHARE) in row_reads(self.values[r]) for r in elsewhere):
            return False
        source = shares[0]
        at_hand = source not in self.group or self.group[source] is not self.group[variable] or self.is_stored(source)
        return at_hand or len(elsewhere) == len(self.readers(variable))

    def members(self, group: _Group) -> list[relax.Var]:
        """What one stage computes, in order: its own variables that something needs, and what it computes again."""
        order = {variable: index for index, variable in enumerate(self.values)}
        needed: set[relax.Var] = set()

        def need(variable: relax.Var) -> None:
            if variable in needed:
                return
            needed.add(variable)
            for read, how in row_reads(self.values[variable]):
                own = self.group.get(read) is group
                if how is Rows.SHARE and read in self.group and (own or read in self.recomputed):
                    need(read)

        for variable in group.variables:
            if self.is_stored(variable):
                need(variable)
        return sorted(needed, key=lambda v: order[v])

    def readers(self, variable: relax.Var) -> list[relax.Var]:
        """The variables whose values read ``variable``."""
        if not hasattr(self, "_readers"):
            self._readers: dict[relax.Var, list[relax.Var]] = {}
            for reader, value in self.values.items():
                for read in read_variables(value):
                    self._readers.setdefault(read, []).append(reader)
        return self._readers.get(variable, [])

    def groups(self) -> list[_Group]:
        """Every stage once."""
        return list({id(group): group for group in self.group.values()}.values())


class _Builder:
    """Writes main and the stages' functions."""

    def __init__(self, module: tvm.IRModule, graph: _Graph) -> None:
        self.module, self.graph = module, graph
        self.attributes = dict(module.attrs.items())
        self.onnx_values = values_of(module)
        self.replacements: dict[relax.Var, relax.Expr] = {}
        self.stages: dict[str, RowStage] = {}

    def build(self) -> StagedNetwork:
        main = self.module["main"]
        # TVM's importer makes kernels of its own for a few operators (Einsum, flips).
        kernels = {name: function for name, function in self.module.functions_items() if name.name_hint != "main"}
        builder = relax.BlockBuilder(tvm.IRModule(kernels))
        with builder.function("main", list(main.params), attrs=dict(main.attrs or {})):
            with builder.dataflow():
                for items in self._in_order():
                    if isinstance(items, _Group):
                        self._call_stage(builder, items)
                    else:
                        value = self.graph.values[items]
                        self.replacements[items] = _emit(builder, items, _replaced(value, self.replacements))
                output = builder.emit_output(self.replacements[main.body.body])
            builder.emit_func_output(output)
        return StagedNetwork(self._annotated(builder.finalize(), self.replacements), self.stages)

    def _annotated(self, module: tvm.IRModule, replacements: dict[relax.Var, relax.Expr]) -> tvm.IRModule:
        """``module`` with the attributes of the network, and the values that it computes of the network's variables."""
        held = {
            new: self.onnx_values[old.name]
            for old, new in replacements.items()
            if old.name in self.onnx_values and isinstance(new, relax.Var)
        }
        return with_values(module.with_attrs(self.attributes), held)

    def _in_order(self) -> list[relax.Var | _Group]:
        graph = self.graph
        order = {variable: index for index, variable in enumerate(graph.values)}
        items: list[tuple[tuple[int, int, int], relax.Var | _Group]] = []
        for variable, index in order.items():
            if variable not in graph.group:
                items.append(((graph.level[variable], 0, index), variable))
        for group in graph.groups():
            group.variables.sort(key=lambda v: order[v])
            items.append(((group.level, 1, order[group.variables[0]]), group))
        return [item for _, item in sorted(items, key=lambda pair: pair[0])]

    def _call_stage(self, builder: relax.BlockBuilder, group: _Group) -> None:
        members = self.graph.members(group)
        # The same tensor may be read whole by a convolution and by its rows beside it.
        inputs = {pair: None for v in members for pair in row_reads(self.graph.values[v]) if pair[0] not in members}
        reads = list(inputs)
        outputs = [
            v for v in members if v in self.graph.group and self.graph.group[v] is group and self.graph.is_stored(v)
        ]
        per_image = self._blocks_per_image(members, [v for v, how in reads if how is Rows.SHARE], outputs)
        if per_image < 2:
            for variable in members:
                value = _replaced(self.graph.values[variable], self.replacements)
                self.replacements[variable] = _emit(builder, variable, value)
            return
        name = f"stage_{len(self.stages)}"
        batch = static_shape(members[0])[0]
        module = self._stage_module(members, reads, outputs, per_image)
        self.stages[name] = RowStage(module, batch * per_image, per_image, tuple(how for _, how in reads))
        types = [relax.TensorType(static_shape(v), str(v.ty.dtype)) for v in outputs]
        arguments = relax.Tuple([self.replacements.get(v, v) for v, _ in reads])
        result = builder.emit(relax.call_dps_packed(name, arguments, types if len(types) > 1 else types[0]))
        for index, variable in enumerate(outputs):
            if len(outputs) == 1:
                self.replacements[variable] = result
            else:
                self.replacements[variable] = _emit(builder, variable, relax.TupleGetItem(result, index))

    def _blocks_per_image(self, members: list[relax.Var], shares: list[relax.Var], outputs: list[relax.Var]) -> int:
        """The fewest blocks of rows whose tensors stay within BLOCK_BYTES."""
        rows = 0
        for variable in (*shares, *members):
            rows = gcd(rows, static_shape(variable)[ROWS_AXIS])
        stored = {v for v in outputs} | set(shares)
        stored |= {v for v in members if operator_name(self.graph.values[v]).startswith("bnn.")}
        image_bytes = sum(_ITEM_BYTES * prod(static_shape(v)[1:]) for v in stored)
        choices = [count for count in range(2, rows + 1) if rows % count == 0]
        return next((count for count in choices if image_bytes // count <= BLOCK_BYTES), max(choices, default=1))

    def _stage_module(
        self, members: list[relax.Var], reads: list[tuple[relax.Var, Rows]], outputs: list[relax.Var], blocks: int
    ) -> tvm.IRModule:
        parameters = []
        for variable, how in reads:
            shape = _block_shape(static_shape(variable), how, blocks)
            parameters.append(relax.Var(f"{layer_identifier(variable)}_{len(parameters)}", _tensor(variable, shape)))
        given = dict(zip(reads, parameters, strict=True))
        inner: dict[relax.Var, relax.Expr] = {}
        builder = relax.BlockBuilder()
        with builder.function("main", parameters):
            with builder.dataflow():
                for variable in members:
                    value = self.graph.values[variable]
                    own_reads = row_reads(value)
                    local = {read: given.get((read, how), inner.get(read)) for read, how in own_reads}
                    value = _replaced(value, local)
                    if own_reads[0][1] is Rows.WHOLE:
                        value = _of_block(value, static_shape(variable)[ROWS_AXIS] // blocks)
                    inner[variable] = _emit(builder, variable, value)
                results = [inner[v] for v in outputs]
                output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
            builder.emit_func_output(output)
        return self._annotated(builder.finalize(), inner)


def _of_block(value: relax.Call, rows: int) -> relax.Call:
    """The same operator, told how many rows it computes of an input that it is given whole."""
    attributes = dict(value.attrs.items()) | {"block_rows": rows}
    return call(operator_name(value), list(value.args), attributes)


def _block_shape(shape: tuple[int, ...], how: Rows, blocks: int) -> tuple[int, ...]:
    if how is Rows.WHOLE:
        return shape
    if how is Rows.IMAGE:
        return (1, *shape[1:])
    return (1, shape[1] // blocks, *shape[2:])


def _tensor(variable: relax.Var, shape: tuple[int, ...]) -> relax.TensorType:
    return relax.TensorType(list(shape), str(variable.ty.dtype))


def _emit(builder: relax.BlockBuilder, variable: relax.Var, value: relax.Expr) -> relax.Var:
    name = layer_identifier(variable)
    return builder.emit(value, name_hint=f"{name}:" if name else "")


def _replaced(value: relax.Expr, replacements: dict[relax.Var, relax.Expr]) -> relax.Expr:
    """The same operation on other arguments; its type is inferred anew."""

    def lookup(expression: relax.Expr) -> relax.Expr:
        if isinstance(expression, relax.Var):
            return replacements.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([lookup(item) for item in expression.fields])
        return expression

    if isinstance(value, relax.Call):
        return relax.Call(value.op, [lookup(argument) for argument in value.args], value.attrs, value.ty_args)
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(lookup(value.tuple_value), value.index)
    return lookup(value)


def _only_moves(value: relax.Expr) -> bool:
    names = ("relax.permute_dims", "relax.reshape", "relax.strided_slice", "relax.concat", "relax.expand_dims")
    return operator_name(value) in names or is_constant(value) or not isinstance(value, relax.Call)
