"""Relax calls as plain Python, for rules that know nothing of TVM."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tvm import ir, relax

from bnn_deploy.exact.operation import Operation
from bnn_deploy.passes.relax.expressions import constant_array, is_constant, operator_name, static_shape


def operation_of(variable: relax.Var, call: relax.Call) -> Operation:
    """A call whose result is ``variable``."""
    single = isinstance(variable.ty, relax.TensorType)
    shape = static_shape(variable) if single else ()
    return Operation(operator_name(call), _attributes(call.attrs), shape, str(variable.ty.dtype) if single else "")


def arguments_of(expressions: Iterable[relax.Expr], value_of: Callable[[relax.Var], object]) -> list[object]:
    """Arguments as arrays, numbers, and tuples of them; ``value_of`` a variable."""
    return [_argument(expression, value_of) for expression in expressions]


def _argument(expression: relax.Expr, value_of: Callable[[relax.Var], object]) -> object:
    if isinstance(expression, relax.Var):
        return value_of(expression)
    if is_constant(expression):
        return constant_array(expression)
    if isinstance(expression, relax.TupleGetItem):
        return _argument(expression.tuple_value, value_of)[expression.index]  # type: ignore[index]
    if isinstance(expression, relax.Tuple):
        return tuple(_argument(field, value_of) for field in expression.fields)
    if isinstance(expression, relax.ShapeExpr):
        return tuple(int(extent) for extent in expression.values)
    return _plain(expression)


def _attributes(attributes: Any) -> dict[str, object]:
    if attributes is None:
        return {}
    if isinstance(attributes, ir.attrs.DictAttrs):
        return {str(key): _plain(attributes[key]) for key in attributes.keys()}  # noqa: SIM118
    fields = [field.name for kind in type(attributes).__mro__ for field in _fields(kind)]
    return {name: _plain(getattr(attributes, name)) for name in fields}


def _fields(kind: type) -> Iterable[Any]:
    information = getattr(kind, "__tvm_ffi_type_info__", None)
    return () if information is None else information.fields


def _plain(value: Any) -> object:
    """Numbers, strings, None, and tuples of them."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "value"):
        return _plain(value.value)
    if hasattr(value, "__len__"):
        return tuple(_plain(item) for item in value)
    return str(value)
