"""Lay the straight line of kernel calls out over one arena.

Before::

    p = call_tir(sign_pack, (x, t));  y = call_tir(conv, (p, w, scale, shift));  z = call_tir(add, (y, x))
After::

    sign_pack(input+0, weights+0, arena+0);  conv(arena+0, weights+64, …, arena+1024);  add(arena+1024, input+0, output+0)

Every buffer lives from the call that writes it to the last that reads it; larger buffers are placed first, each at the lowest
offset free for its whole life. Reshapes share their source's bytes. Equal constants are stored once.
Where: last; its result is what the code generator writes down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import tvm
from tvm import relax

from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.rewriter import constant_array, is_constant, main_bindings, operator_name, static_shape
from bnn_deploy.passes.tir.raw_pointers import RawKernel
from bnn_deploy.plan import Argument, ExecutionPlan, Space, Step, TensorSpecification

_ALIGNMENT = 64
_ITEM_BYTES = {"float32": 4, "uint32": 4, "int32": 4, "int64": 8, "uint8": 1, "bool": 1}


@dataclass
class _Buffer:
    """One block of memory: where it lies, or its size and the steps between which it must not be overwritten."""

    size: int
    first: int
    last: int
    argument: Argument | None = None


@dataclass
class _Planner:
    buffers: dict[relax.Var, _Buffer] = field(default_factory=dict)
    tuples: dict[relax.Var, list[_Buffer]] = field(default_factory=dict)
    placed: list[_Buffer] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)
    constants: dict[bytes, int] = field(default_factory=dict)

    def constant(self, data: bytes) -> Argument:
        if data not in self.constants:
            self.weights.extend(bytes(-len(self.weights) % _ALIGNMENT))
            self.constants[data] = len(self.weights)
            self.weights.extend(data)
        return Argument(Space.WEIGHTS, self.constants[data])

    def read(self, expression: relax.Expr, step: int) -> _Buffer:
        if is_constant(expression):
            return _Buffer(0, step, step, self.constant(constant_array(expression).tobytes()))
        buffer = self.buffers[expression]
        buffer.last = max(buffer.last, step)
        return buffer

    def allocate(self, size: int, step: int) -> _Buffer:
        self.placed.append(_Buffer(size, step, step))
        return self.placed[-1]


def plan_memory(module: tvm.IRModule, kernels: dict[str, RawKernel]) -> ExecutionPlan:
    """Run the pass.

    Args:
        module: Relax ``main`` of call_tir, tuple access and reshape only.
        kernels: by name of the called function; identical kernels may share one symbol.

    Raises:
        CompileError: main still holds something that is not a kernel call (a defect of an earlier pass); names it.
    """
    main = module["main"]
    layers = {str(name): str(layer) for name, layer in module.attrs["kernel_layers"].items()}
    planner = _Planner()
    for parameter in main.params:
        planner.buffers[parameter] = _Buffer(0, 0, 0, Argument(Space.INPUT, 0))
    calls: list[tuple[relax.Call, list[_Buffer]]] = []
    for binding in main_bindings(main):
        value = binding.value
        if operator_name(value) == "relax.call_tir":
            calls.append((value, _call_buffers(planner, binding.var, value, kernels, len(calls))))
        elif operator_name(value) == "relax.reshape":
            planner.buffers[binding.var] = planner.read(value.args[0], len(calls))
        elif isinstance(value, relax.TupleGetItem):
            planner.buffers[binding.var] = planner.tuples[value.tuple_value][value.index]
        elif isinstance(value, relax.Var):
            planner.buffers[binding.var] = planner.buffers[value]
        else:
            raise CompileError(
                f"Cannot plan '{operator_name(value) or type(value).__name__}': it is not a kernel call."
            )
    result = main.body.body
    output = planner.buffers.get(result)
    if output is None or output.argument is not None:
        raise CompileError("The network's output must be computed by a kernel; found a constant or the input itself.")
    output.argument = Argument(Space.OUTPUT, 0)
    arena_bytes = _place([buffer for buffer in planner.placed if buffer.argument is None])
    return ExecutionPlan(
        steps=tuple(_step(call, buffers, kernels, layers) for call, buffers in calls),
        inputs=tuple(_specification(parameter.name, parameter) for parameter in main.params),
        outputs=(_specification("logits", result),),
        weights=bytes(planner.weights),
        arena_bytes=arena_bytes,
    )


def _call_buffers(
    planner: _Planner, variable: relax.Var, call: relax.Call, kernels: dict[str, RawKernel], step: int
) -> list[_Buffer]:
    reads = [planner.read(argument, step) for argument in call.args[1].fields]
    out = call.ty_args[0]
    types = list(out.fields) if isinstance(out, relax.TupleType) else [out]
    writes = [planner.allocate(_bytes(ty), step) for ty in types]
    if isinstance(out, relax.TupleType):
        planner.tuples[variable] = writes
    else:
        planner.buffers[variable] = writes[0]
    scratch = [planner.allocate(size, step) for size in kernels[call.args[0].name_hint].scratch_bytes]
    return [*reads, *writes, *scratch]


def _place(buffers: list[_Buffer]) -> int:
    """Give each buffer an arena offset, largest first; returns the arena's size in bytes."""
    done: list[_Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        offset = 0
        alive = [other for other in done if other.first <= buffer.last and buffer.first <= other.last]
        for other in sorted(alive, key=lambda b: b.argument.offset):
            if offset + buffer.size <= other.argument.offset:
                break
            offset = max(offset, _aligned(other.argument.offset + other.size))
        buffer.argument = Argument(Space.ARENA, offset)
        done.append(buffer)
    return max((_aligned(buffer.argument.offset + buffer.size) for buffer in done), default=0)


def _step(call: relax.Call, buffers: list[_Buffer], kernels: dict[str, RawKernel], layers: dict[str, str]) -> Step:
    name = call.args[0].name_hint
    attributes = call.attrs
    return Step(
        kernel=str(kernels[name].function.attrs["global_symbol"]),
        layer=layers[name] if attributes is None else str(attributes["layer"]),
        kind="float" if attributes is None else str(attributes["kind"]),
        arguments=tuple(buffer.argument for buffer in buffers),
        binary_macs=0 if attributes is None else int(attributes["binary_macs"]),
    )


def _specification(name: str, tensor: relax.Expr) -> TensorSpecification:
    return TensorSpecification(name, static_shape(tensor), str(tensor.ty.dtype))


def _bytes(ty: relax.TensorType) -> int:
    return prod(int(extent) for extent in ty.shape.values) * _ITEM_BYTES[str(ty.dtype)]


def _aligned(offset: int) -> int:
    return offset + -offset % _ALIGNMENT
