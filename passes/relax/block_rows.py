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

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod

import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.dialect.values import values_of, with_values
from bnn_deploy.passes.relax.expressions import layer_identifier, operator_name, static_shape, with_variables
from bnn_deploy.passes.relax.row_rules import ROWS_AXIS, Rows
from bnn_deploy.passes.relax.stage_assignment import Group, StageAssignment

# What a block's tensors may take together: with the weights within L2, and mostly within L1. BiMLP-S took 7.1 ms with 96 KiB
# and 10.8 with 192; BCDNet-A takes the same from 48 KiB to 1 MiB.
BLOCK_BYTES = 64 * 1024
_ITEM_BYTES = 4


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

    @property
    def functions(self) -> dict[str, tvm.IRModule]:
        """All that is lowered to kernels: ``main``, and one block of every stage."""
        return {"main": self.main} | {name: stage.module for name, stage in self.stages.items()}

    def script(self) -> str:
        """The text of all functions, for ``--dump-ir``."""
        parts = [self.main.script()]
        for name, stage in self.stages.items():
            parts.append(f"# {name}: {stage.blocks} blocks\n{stage.module.script()}")
        return "\n\n".join(parts)


def block_rows(module: tvm.IRModule) -> StagedNetwork:
    """Run the pass; see the module's docstring."""
    return _Builder(module).build()


class _Builder:
    """Writes main and the stages' functions."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.module, self.graph = module, StageAssignment(module)
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
                    if isinstance(items, Group):
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

    def _in_order(self) -> list[relax.Var | Group]:
        graph = self.graph
        order = {variable: index for index, variable in enumerate(graph.values)}
        items: list[tuple[tuple[int, int, int], relax.Var | Group]] = []
        for variable, index in order.items():
            if variable not in graph.group:
                items.append(((graph.level[variable], 0, index), variable))
        for group in graph.groups():
            group.variables.sort(key=lambda v: order[v])
            items.append(((group.level, 1, order[group.variables[0]]), group))
        return [item for _, item in sorted(items, key=lambda pair: pair[0])]

    def _call_stage(self, builder: relax.BlockBuilder, group: Group) -> None:
        members = self.graph.members(group)
        # The same tensor may be read whole by a convolution and by its rows beside it.
        inputs = {pair: None for v in members for pair in self.graph.reads[v] if pair[0] not in members}
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
        parameters: list[relax.Var] = []
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
                    own_reads = self.graph.reads[variable]
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


def _replaced(value: relax.Expr, replacements: Mapping[relax.Var, relax.Expr]) -> relax.Expr:
    return with_variables(value, lambda variable: replacements.get(variable, variable))
