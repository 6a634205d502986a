"""Make TIR of everything that is not binary, and fuse neighbouring elementwise work into one kernel each.

Before::

    y = call_tir(binary_conv2d_…);  z = add(y, shortcut);  o = prelu(z, slope)
After::

    y = call_tir(binary_conv2d_…);  o = call_tir(fused_add_prelu, (y, shortcut, slope)) {layer: "block.2.add + block.2.prelu"}

TVM's LegalizeOps, FuseOps and FuseTIR do the work; here layer names and the names of variables are carried through them as
attributes of the calls, and reshapes are kept apart, since the memory plan turns them into the same bytes under another shape.
Where: after ``lower_binary``.
Not handled: operators that TVM has no TIR for; they stay, and ``plan_memory`` names their node.
"""

from __future__ import annotations

import tvm
from tvm import ir, relax
from tvm.relax import PyExprMutator, expr_functor

from bnn_deploy.dialect.values import Value, values_of, with_values
from bnn_deploy.passes.relax.expressions import call_of, layer_name, main_bindings, operator_name

_ALIASES = ["relax.reshape"]


def fuse_float(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring. Adds the attribute ``kernel_layers``: fused kernel -> joined layer names."""
    attributes = dict(module.attrs.items())
    held = _values_under_all_names(module)
    module = relax.transform.LegalizeOps(skip_ops=_ALIASES)(module)
    module = _tagged(module, attributes["layer_names"])
    module = relax.transform.AnnotateTIROpPattern()(module)
    module = relax.transform.FuseOps()(module)
    layers = _fused_layers(module)
    held |= _fused_values(module, held)
    module = relax.transform.FuseTIR()(module)
    module = relax.transform.CanonicalizeBindings()(module)
    module = relax.transform.DeadCodeElimination()(module)
    module = module.with_attrs(attributes | {"kernel_layers": layers})
    bindings = main_bindings(module["main"])
    return with_values(module, {b.var: held[b.var.name] for b in bindings if b.var.name in held})


def _tagged(module: tvm.IRModule, layer_names: dict[str, str]) -> tvm.IRModule:
    @expr_functor.mutator
    class Tag(PyExprMutator):  # type: ignore[misc]  # tvm has no types
        def visit_var_binding_(self, binding: relax.VarBinding) -> None:
            value = binding.value
            if operator_name(value) == "relax.call_tir" and value.attrs is None:
                name = layer_name(binding.var, layer_names)
                attributes = ir.make_node(
                    "ir.DictAttrs", layer=name, kind="float", binary_macs=0, variable=binding.var.name
                )
                tagged = relax.Call(value.op, value.args, attributes, value.ty_args)
                binding = relax.VarBinding(binding.var, tagged)
            super().visit_var_binding_(binding)

    module = tvm.IRModule(dict(module.functions_items()))
    module.update_func(module.get_global_var("main"), Tag(module).visit_expr(module["main"]))
    return module


def _fused_layers(module: tvm.IRModule) -> dict[str, str]:
    fused = {}
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function) and variable.name_hint != "main":
            calls = [b.value for b in main_bindings(function) if operator_name(b.value) == "relax.call_tir"]
            # Layers in order of execution, each once.
            fused[variable.name_hint] = " + ".join(dict.fromkeys(str(call.attrs["layer"]) for call in calls))
    return fused


def _values_under_all_names(module: tvm.IRModule) -> dict[str, Value]:
    """The values of ``module``, also under those names of a result that TVM's passes may leave: a field of a tuple is its item."""
    held = values_of(module)
    values = {binding.var: binding.value for binding in main_bindings(module["main"])}
    for variable, value in reversed(values.items()):
        if isinstance(value, relax.TupleGetItem) and variable.name in held:
            whole = values.get(value.tuple_value, value.tuple_value)
            if isinstance(whole, relax.Tuple):
                held.setdefault(whole.fields[value.index].name, held[variable.name])
    return held


def _fused_values(module: tvm.IRModule, held: dict[str, Value]) -> dict[str, Value]:
    """What variables hold that FuseOps gave to fused functions, or that are another name of a result."""
    functions = {
        variable.name_hint: function
        for variable, function in module.functions_items()
        if isinstance(function, relax.Function) and variable.name_hint != "main"
    }
    found: dict[str, Value] = {}
    for binding in main_bindings(module["main"]):
        if isinstance(binding.value, relax.Var) and binding.value.name in (held | found):
            found[binding.var.name] = (held | found)[binding.value.name]
        callee = binding.value.op if isinstance(binding.value, relax.Call) else None
        if not isinstance(callee, relax.GlobalVar) or callee.name_hint not in functions:
            continue
        function = functions[callee.name_hint]
        values = {inner.var: inner.value for inner in main_bindings(function)}
        result = function.body.body
        while isinstance(values.get(result), relax.Var):
            result = values[result]
        last = call_of(values.get(result), "relax.call_tir")
        if last is not None and str(last.attrs["variable"]) in held:
            found[binding.var.name] = held[str(last.attrs["variable"])]
    return found
