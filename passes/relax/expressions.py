"""Reading a network: its bindings, and what an expression of Relax is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax
from tvm.ir import GenericConst, Op


def main_bindings(function: relax.Function) -> list[relax.VarBinding]:
    """All bindings of a straight-line function, in order."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def count_uses(function: relax.Function) -> dict[relax.Var, int]:
    """How often each variable is read, the function's result included."""
    uses: dict[relax.Var, int] = {}
    for expression in (*(binding.value for binding in main_bindings(function)), function.body.body):
        for variable in read_variables(expression):
            uses[variable] = uses.get(variable, 0) + 1
    return uses


def readers_of(values: Mapping[relax.Var, relax.Expr]) -> dict[relax.Var, list[relax.Var]]:
    """The variables whose values read each variable, as often as they do."""
    readers: dict[relax.Var, list[relax.Var]] = {}
    for reader, value in values.items():
        for read in read_variables(value):
            readers.setdefault(read, []).append(reader)
    return readers


def read_variables(expression: relax.Expr | None) -> list[relax.Var]:
    """The variables that an expression reads, as often as it reads them; none of None."""
    if isinstance(expression, relax.Var):
        return [expression]
    if isinstance(expression, relax.TupleGetItem):
        return read_variables(expression.tuple_value)
    if isinstance(expression, relax.Tuple):
        return [variable for field in expression.fields for variable in read_variables(field)]
    if isinstance(expression, relax.Call):
        return [variable for argument in expression.args for variable in read_variables(argument)]
    return []


def with_variables(expression: relax.Expr, lookup: Callable[[relax.Var], relax.Expr]) -> relax.Expr:
    """The same operation on what ``lookup`` gives for the variables that it reads; its type is inferred anew."""

    def replaced(part: relax.Expr) -> relax.Expr:
        if isinstance(part, relax.Tuple):
            return relax.Tuple([replaced(field) for field in part.fields])
        return lookup(part) if isinstance(part, relax.Var) else part

    if isinstance(expression, relax.Call):
        arguments = [replaced(argument) for argument in expression.args]
        return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
    if isinstance(expression, relax.TupleGetItem):
        return relax.TupleGetItem(replaced(expression.tuple_value), expression.index)
    return replaced(expression)


def layer_identifier(variable: relax.Var) -> str:
    """The part of a variable's name that stands for its layer, a key of ``layer_names``: ``name_layers`` ends it with a colon."""
    return variable.name.split(":")[0] if ":" in variable.name else ""


def layer_name(variable: relax.Var, names: Mapping[str, str]) -> str:
    """What the user calls the layer of a variable: the PyTorch layer or ONNX node; ``names`` is the attribute ``layer_names``."""
    identifier = layer_identifier(variable)
    return str(names.get(identifier, identifier or variable.name))


def operator_name(value: object) -> str:
    """``relax.add``, ``bnn.conv2d``, … or the empty string."""
    return value.op.name if isinstance(value, relax.Call) and isinstance(value.op, Op) else ""


def call_of(value: object, *operators: str) -> relax.Call | None:
    """``value``, if it is a call of one of the operators."""
    return value if operator_name(value) in operators else None


def static_shape(expression: relax.Expr) -> tuple[int, ...]:
    """Shape of a tensor expression as integers."""
    return shape_of_type(expression.ty)


def shape_of_type(ty: relax.TensorType) -> tuple[int, ...]:
    """Shape of a tensor of this type as integers."""
    return tuple(int(extent) for extent in ty.shape.values)


def is_constant(expression: object) -> bool:
    """Whether an expression is an embedded tensor."""
    return isinstance(expression, GenericConst)


def constant_array(expression: GenericConst) -> np.ndarray:
    """The embedded tensor as a numpy array."""
    array: np.ndarray = expression.value.numpy()
    return array


def channel_vector(constant: GenericConst, channels: int) -> np.ndarray | None:
    """A float32 constant as (C,), if it is one number, or one per channel along the last axis and nothing else."""
    values = constant_array(constant)
    if values.dtype != np.float32 or values.size not in (1, channels):
        return None
    if values.ndim and values.shape[-1] != values.size:
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (channels,)))


def integers(expression: relax.Expr) -> list[int]:
    """A tuple of Relax integers (the axes, begins, … of a strided slice) as Python integers."""
    return [int(field) for field in expression.fields]


def slice_of(
    value: relax.Expr, values: Mapping[relax.Var, relax.Expr]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """(axes, begin, end, strides) of a strided slice, or of one part of a split; where it steps forward, within bounds."""
    if isinstance(value, relax.Call):
        axes, begin, end, strides = (integers(argument) for argument in value.args[1:])
        shape = static_shape(value.args[0])
        for i, axis in enumerate(axes):
            if strides[i] > 0:
                begin[i], end[i], _ = slice(begin[i], end[i]).indices(shape[axis])
        return axes, begin, end, strides
    split = values[value.tuple_value]
    axis = int(split.attrs.axis)
    extents = [shape_of_type(field)[axis] for field in split.ty.fields]
    first = sum(extents[: value.index])
    return [axis], [first], [first + extents[value.index]], [1]
