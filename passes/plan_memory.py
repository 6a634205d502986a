"""Lay the straight line of kernel calls out over one arena, and the inside of every stage over a thread's workspace.

Before::

    p = call_tir(sign_pack, (x, t));  y = call_tir(conv, (p, w, scale, shift));  z = call_tir(add, (y, x))
After::

    sign_pack(input+0, weights+0, arena+0);  conv(arena+0, weights+64, …, arena+1024);  add(arena+1024, input+0, output+0)

Every buffer lives from the call that writes it to the last that reads it; larger buffers are placed first, each at the lowest
offset free for its whole life. Reshapes share their source's bytes. Equal constants are stored once.
A stage counts as one call: what it reads and writes lies in the arena, and its steps walk through it block by block; what only
its own steps see lies in the workspace, which all stages use one after the other.
Where: last; its result is what the code generator writes down.
Not handled: operators that no kernel computes, and types without a size here: CompileError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from tvm import relax

from bnn_deploy.dialect.values import Value, values_of
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.buffers import Buffer, Constants, Moving, place_buffers
from bnn_deploy.passes.relax.block_rows import RowStage
from bnn_deploy.passes.relax.expressions import (
    constant_array,
    is_constant,
    layer_name,
    main_bindings,
    operator_name,
    shape_of_type,
    static_shape,
)
from bnn_deploy.passes.relax.row_rules import Rows
from bnn_deploy.passes.tir.kernel_set import LoweredFunction
from bnn_deploy.passes.tir.raw_pointers import RawKernel
from bnn_deploy.plan import Argument, ExecutionPlan, Result, Space, Stage, Step, TensorSpecification

_ITEM_BYTES = {"float32": 4, "float64": 8, "uint32": 4, "int32": 4, "int64": 8, "uint8": 1, "int8": 1, "bool": 1}


@dataclass
class _Call:
    """A kernel call, its arguments, and the bytes of those that are tensors; what follows them is scratch memory.

    ``results`` are ONNX values by the index of their arguments.
    """

    value: relax.Call
    arguments: list[Moving]
    tensor_bytes: list[int]
    results: dict[int, Value] = field(default_factory=dict)


class _Frame:
    """The buffers of one function: the network, or one block of a stage."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.buffers: dict[relax.Var, Moving] = {}
        self.tuples: dict[relax.Var, list[Moving]] = {}
        self.placed: list[Buffer] = []

    def read(self, expression: relax.Expr, step: int) -> Moving:
        """The buffer of a variable or constant; it must stay until ``step``."""
        if is_constant(expression):
            return self.constants.buffer(constant_array(expression).tobytes()).at()
        moving = self.buffers[expression]
        moving.buffer.last = max(moving.buffer.last, step)
        return moving

    def allocate(self, size: int, step: int) -> Moving:
        """A new buffer that is written at ``step``."""
        self.placed.append(Buffer(size, step, step))
        return self.placed[-1].at()

    def write(self, variable: relax.Var, out: relax.TensorType | relax.TupleType, step: int) -> list[Moving]:
        """New buffers for the results of a call."""
        whole = isinstance(out, relax.TupleType)
        writes = [self.allocate(_bytes(ty), step) for ty in (out.fields if whole else [out])]
        if whole:
            self.tuples[variable] = writes
        else:
            self.buffers[variable] = writes[0]
        return writes

    def alias(self, variable: relax.Var, value: relax.Expr, step: int) -> bool:
        """Whether ``value`` is another name or shape of what is there; if so, it is known from now on."""
        if operator_name(value) == "relax.reshape":
            self.buffers[variable] = self.read(value.args[0], step)
        elif isinstance(value, relax.TupleGetItem):
            self.buffers[variable] = self.tuples[value.tuple_value][value.index]
        elif isinstance(value, relax.Var):
            self.buffers[variable] = self.buffers[value]
        elif isinstance(value, relax.Tuple):
            self.tuples[variable] = [self.buffers[item] for item in value.fields]
        else:
            return False
        return True

    def call(self, variable: relax.Var, value: relax.Call, kernels: Mapping[str, RawKernel], step: int) -> _Call:
        """A kernel call at ``step``: what it reads, writes, and scratch memory."""
        # A plain number among the arguments stands for the index of the block.
        tensors = [a for a in value.args[1].fields if isinstance(a.ty, relax.TensorType)]
        reads = [self.read(argument, step) for argument in tensors]
        writes = self.write(variable, value.ty_args[0], step)
        scratch = [self.allocate(size, step) for size in kernels[value.args[0].name_hint].scratch_bytes]
        out = value.ty_args[0]
        results = out.fields if isinstance(out, relax.TupleType) else [out]
        sizes = [_bytes(ty) for ty in (*(argument.ty for argument in tensors), *results)]
        return _Call(value, [*reads, *writes, *scratch], sizes)

    def find_results(self, calls: list[_Call], values: Mapping[str, Value]) -> None:
        """Tell each call which ONNX values it writes; under several names, reshaped ones, a buffer has the first."""
        held: dict[int, Value] = {}
        for variable, moving in self.buffers.items():
            if variable.name in values:
                held.setdefault(id(moving.buffer), values[variable.name])
        for call in calls:
            out = call.value.ty_args[0]
            count = len(out.fields) if isinstance(out, relax.TupleType) else 1
            last = len(call.tensor_bytes)
            for index in range(last - count, last):
                value = held.get(id(call.arguments[index].buffer))
                if value is not None:
                    call.results[index] = value


@dataclass
class _PlannedStage:
    """The kernel calls of one stage of the plan."""

    function: LoweredFunction
    calls: list[_Call]
    blocks: int = 1
    workspace: list[Buffer] = field(default_factory=list)


def plan_memory(
    functions: Mapping[str, LoweredFunction],
    stages: Mapping[str, RowStage] | None = None,
    constants: Constants | None = None,
) -> ExecutionPlan:
    """Run the pass.

    Args:
        functions: Relax of call_tir, tuple access and reshape only: ``main``, which also calls stages (call_dps_packed), and
            one block of every stage, by name.
        stages: each stage as it was cut.
        constants: those of the plans before; this plan's are added.

    Raises:
        CompileError: a function still holds something that is not a kernel call (a defect of an earlier pass); names it.
    """
    network = functions["main"]
    main, constants = network.module["main"], constants or Constants()
    frame = _Frame(constants)
    for parameter in main.params:
        frame.buffers[parameter] = Buffer(0, place=Argument(Space.INPUT, 0)).at()
    planned: list[_PlannedStage] = []
    for binding in main_bindings(main):
        value, step = binding.value, len(planned)
        if operator_name(value) == "relax.call_tir":
            planned.append(_PlannedStage(network, [frame.call(binding.var, value, network.kernels, step)]))
        elif operator_name(value) == "relax.call_dps_packed":
            name = str(value.args[0].global_symbol)
            reads = [frame.read(argument, step) for argument in value.args[1].fields]
            writes = frame.write(binding.var, value.ty_args[0], step)
            planned.append(_plan_stage((stages or {})[name], functions[name], reads, writes, constants))
        elif not frame.alias(binding.var, value, step):
            raise _without_kernel(network, binding.var, value)
    frame.find_results(
        [call for stage in planned if stage.function is network for call in stage.calls], values_of(network.module)
    )
    result = main.body.body
    output = frame.buffers.get(result)
    if output is None or output.buffer.place is not None:
        raise CompileError("The network's output must be computed by a kernel; found a constant or the input itself.")
    output.buffer.place = Argument(Space.OUTPUT, 0)
    arena_bytes = place_buffers(frame.placed, Space.ARENA)
    workspaces = [place_buffers(stage.workspace, Space.WORKSPACE) for stage in planned]
    return ExecutionPlan(
        steps=tuple(_step(call, stage) for stage in planned for call in stage.calls),
        inputs=tuple(_specification(parameter.name, parameter) for parameter in main.params),
        outputs=(_specification("logits", result),),
        weights=bytes(constants.data),
        arena_bytes=arena_bytes,
        workspace_bytes=max(workspaces, default=0),
        stages=tuple(Stage(len(stage.calls), stage.blocks) for stage in planned),
    )


def _plan_stage(
    stage: RowStage, function: LoweredFunction, reads: list[Moving], writes: list[Moving], constants: Constants
) -> _PlannedStage:
    """The steps of a stage; ``reads`` and ``writes`` are whole tensors, in the order of its parameters and results."""
    main = function.module["main"]
    frame = _Frame(constants)
    for parameter, moving, how in zip(main.params, reads, stage.reads, strict=True):
        stride = 0 if how is Rows.WHOLE else _bytes(parameter.ty)
        frame.buffers[parameter] = moving.buffer.at(stride, stage.blocks_per_image if how is Rows.IMAGE else 1)
    calls: list[_Call] = []
    for binding in main_bindings(main):
        value = binding.value
        if operator_name(value) == "relax.call_tir":
            calls.append(frame.call(binding.var, value, function.kernels, len(calls)))
        elif not frame.alias(binding.var, value, len(calls)):
            raise _without_kernel(function, binding.var, value)
    frame.find_results(calls, values_of(function.module))
    result = main.body.body
    results = frame.tuples[result] if isinstance(result.ty, relax.TupleType) else [frame.buffers[result]]
    stored = {
        id(inner.buffer): whole.buffer.at(inner.buffer.size) for inner, whole in zip(results, writes, strict=True)
    }
    for call in calls:
        call.arguments = [stored.get(id(moving.buffer), moving) for moving in call.arguments]
    return _PlannedStage(function, calls, stage.blocks, [b for b in frame.placed if id(b) not in stored])


def _step(call: _Call, stage: _PlannedStage) -> Step:
    name = call.value.args[0].name_hint
    kernel = stage.function.kernels[name]
    attributes = call.value.attrs
    layers = stage.function.module.attrs["kernel_layers"]
    return Step(
        kernel=kernel.symbol,
        layer=str(layers[name] if attributes is None else attributes["layer"]),
        kind="float" if attributes is None else str(attributes["kind"]),
        arguments=tuple(moving.argument for moving in call.arguments),
        binary_macs=0 if attributes is None else int(attributes["binary_macs"]) * stage.blocks,
        takes_block=kernel.takes_block,
        bytes=_bytes_touched(call, stage.blocks),
        launches=kernel.launches,
        results=tuple(
            Result(
                value.tensor,
                "words" if value.channels else "floats",
                index,
                call.tensor_bytes[index],
                bool(value.channels_last),
            )
            for index, value in call.results.items()
        ),
    )


def _bytes_touched(call: _Call, blocks: int) -> int:
    """Bytes of the distinct tensors of a call, all blocks together."""
    sizes: dict[Argument, int] = {}
    for moving, size in zip(call.arguments, call.tensor_bytes, strict=False):
        place = moving.argument
        if place.stride:
            size *= -(-blocks // place.every)
        elif place.space is Space.WORKSPACE:
            size *= blocks  # every block has its own values there
        sizes[place] = max(size, sizes.get(place, 0))
    return sum(sizes.values())


def _specification(name: str, tensor: relax.Expr) -> TensorSpecification:
    return TensorSpecification(name, static_shape(tensor), str(tensor.ty.dtype))


def _without_kernel(function: LoweredFunction, variable: relax.Var, value: relax.Expr) -> CompileError:
    attributes = {} if function.module.attrs is None else dict(function.module.attrs.items())
    node = layer_name(variable, attributes.get("layer_names", {}))
    operator = operator_name(value).removeprefix("relax.") or type(value).__name__
    return CompileError(
        f"Node '{node}' needs '{operator}', for which the compiler has no kernel; replace it in the "
        "model, or export only the part before it."
    )


def _bytes(ty: relax.TensorType) -> int:
    if str(ty.dtype) not in _ITEM_BYTES:
        raise CompileError(
            f"The model computes with values of type {ty.dtype}, which the compiler cannot store; use float32."
        )
    return prod(shape_of_type(ty)) * _ITEM_BYTES[str(ty.dtype)]
