"""The shared way to rewrite a network: walk its straight line of bindings once, emitting into a new function.

A pass subclasses ``DataflowRewriter`` and overrides ``rewrite``; everything it leaves alone is copied. Layer names survive
because every new variable is named after the one it replaces, and what replaces a variable holds the same ONNX value
(``bnn_deploy.dialect.values``).
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, Op

from bnn_deploy.dialect.values import Value, values_of, with_values
from bnn_deploy.errors import CompileError


class DataflowRewriter:
    """Rewrites ``main`` (one dataflow block, static shapes) binding by binding."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.module = module
        self.main = module["main"]
        others = {variable: function for variable, function in module.functions_items() if variable.name_hint != "main"}
        self.builder = relax.BlockBuilder(tvm.IRModule(others))
        self.replacements: dict[relax.Var, relax.Expr] = {}
        self.bindings = list(main_bindings(self.main))
        self.values = {binding.var: binding.value for binding in self.bindings}
        self.uses = count_uses(self.main)
        self.onnx_values = values_of(module)
        self.noted: dict[relax.Var, Value] = {}
        self._name = ""

    def run(self) -> tvm.IRModule:
        """The rewritten module, dead bindings removed."""
        with self.builder.function("main", list(self.main.params), attrs=dict(self.main.attrs or {})):
            with self.builder.dataflow():
                self.begin()
                for binding in self.bindings:
                    # What has no layer, the transpose of the output say, belongs to the layer before it.
                    self._name = layer_identifier(binding.var) or self._name
                    value = binding.value
                    rewritable = isinstance(value, (relax.Call, relax.TupleGetItem))
                    replacement = self.rewrite(binding.var, value) if rewritable else None
                    if replacement is None:
                        replacement = self.copy(value)
                    self.replacements[binding.var] = replacement
                    held = self.onnx_values.get(binding.var.name)
                    if held is not None:
                        self.note(replacement, self.value_after(binding.var, held))
                output = self.builder.emit_output(self.finish(self.lookup(self.main.body.body)))
            self.builder.emit_func_output(output)
        module = relax.transform.DeadCodeElimination()(self.builder.finalize())
        return with_values(module.with_attrs(dict(self.module.attrs.items())), self.noted)

    def note(self, expression: relax.Expr, value: Value) -> None:
        """A new variable holds ``value``, unless it is known to hold another one. Parameters and constants hold none."""
        if isinstance(expression, relax.Var) and not any(expression.same_as(p) for p in self.main.params):
            self.noted.setdefault(expression, value)

    def value_after(self, variable: relax.Var, value: Value) -> Value:
        """How the ``value`` of a variable lies in what replaces it; a pass that changes the layout overrides this."""
        return value

    def begin(self) -> None:
        """Called inside the new function before its first binding."""

    def finish(self, output: relax.Expr) -> relax.Expr:
        """Called with the rewritten output before the function ends."""
        return output

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        """The replacement of ``variable``, or None to copy its value with the arguments replaced."""
        raise CompileError(f"{type(self).__name__} must define rewrite()")

    def lookup(self, expression: relax.Expr) -> relax.Expr:
        """The new expression for an old one (a variable, tuple or constant)."""
        if isinstance(expression, relax.Var):
            return self.replacements.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.lookup(field) for field in expression.fields])
        return expression

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind a new expression under the name of the layer being rewritten."""
        hint = f"{self._name}:" if self._name else ""
        return self.builder.emit(expression, name_hint=hint)

    def copy(self, value: relax.Expr) -> relax.Expr:
        """The same operation on replaced arguments."""
        if isinstance(value, relax.Call):
            return self.emit(relax.Call(value.op, [self.lookup(a) for a in value.args], value.attrs, value.ty_args))
        if isinstance(value, relax.TupleGetItem):
            return self.emit(relax.TupleGetItem(self.lookup(value.tuple_value), value.index))
        return self.lookup(value)


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
