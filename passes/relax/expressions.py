"""Reading a network: its bindings, and what an expression of Relax is."""

from __future__ import annotations

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


def layer_identifier(variable: relax.Var) -> str:
    """The part of a variable's name that stands for its layer, a key of ``layer_names``: ``name_layers`` ends it with a colon."""
    return variable.name.split(":")[0] if ":" in variable.name else ""


def operator_name(value: object) -> str:
    """``relax.add``, ``bnn.conv2d``, … or the empty string."""
    return value.op.name if isinstance(value, relax.Call) and isinstance(value.op, Op) else ""


def static_shape(expression: relax.Expr) -> tuple[int, ...]:
    """Shape of a tensor expression as integers."""
    return tuple(int(extent) for extent in expression.ty.shape.values)


def is_constant(expression: object) -> bool:
    """Whether an expression is an embedded tensor."""
    return isinstance(expression, GenericConst)


def constant_array(expression: GenericConst) -> np.ndarray:
    """The embedded tensor as a numpy array."""
    return expression.value.numpy()


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
