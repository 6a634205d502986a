"""The shared way to rewrite a network: walk its straight line of bindings once, emitting into a new function.

A pass subclasses ``DataflowRewriter`` and overrides ``rewrite``; everything it leaves alone is copied. Layer names survive
because every new variable is named after the one it replaces, and what replaces a variable holds the same ONNX value
(``bnn_deploy.dialect.values``).
"""

from __future__ import annotations

import tvm
from tvm import relax

from bnn_deploy.dialect.values import Value, values_of, with_values
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import (
    call_of,
    count_uses,
    layer_identifier,
    layer_name,
    main_bindings,
    with_variables,
)


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

    def producer(self, expression: relax.Expr, *operators: str) -> relax.Call | None:
        """The old function's call that computes ``expression``, if it is of one of the operators."""
        return call_of(self.values.get(expression), *operators)

    def layer_name(self, variable: relax.Var) -> str:
        """What the user calls the layer of a variable of the old function."""
        return layer_name(variable, self.module.attrs["layer_names"])

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
        copied = with_variables(value, self.lookup)
        return self.emit(copied) if isinstance(copied, (relax.Call, relax.TupleGetItem)) else copied
