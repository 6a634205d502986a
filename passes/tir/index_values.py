"""What an index or a condition is, at every value of the variables that it depends on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tvm import tirx
from tvm.ir import Expr

_OPERATIONS = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.FloorDiv: np.floor_divide,
    tirx.FloorMod: np.mod,
    tirx.LT: np.less,
    tirx.LE: np.less_equal,
    tirx.GT: np.greater,
    tirx.GE: np.greater_equal,
    tirx.EQ: np.equal,
    tirx.NE: np.not_equal,
    tirx.And: np.logical_and,
    tirx.Or: np.logical_or,
    tirx.Not: np.logical_not,
}


def index_values(expression: Expr, positions: Mapping[tirx.Var, np.ndarray]) -> np.ndarray | None:
    """``expression`` (integer or condition) at ``positions``, which broadcast; None when it depends on anything else."""
    if isinstance(expression, tirx.IntImm):
        return np.asarray(int(expression.value))
    if isinstance(expression, tirx.Var):
        return next((values for variable, values in positions.items() if variable.same_as(expression)), None)
    operation = _OPERATIONS.get(type(expression))
    if operation is None:
        return None
    operands = [expression.a] if isinstance(expression, tirx.Not) else [expression.a, expression.b]
    values = [index_values(operand, positions) for operand in operands]
    return None if any(value is None for value in values) else operation(*values)
