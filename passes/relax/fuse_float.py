"""Make TIR of everything that is not binary, and fuse neighbouring elementwise work into one kernel each.

Before::

    y = call_tir(binary_conv2d_…);  z = add(y, shortcut);  o = prelu(z, slope)
After::

    y = call_tir(binary_conv2d_…);  o = call_tir(fused_add_prelu, (y, shortcut, slope)) {layer: "block.2.add + block.2.prelu"}

TVM's LegalizeOps, FuseOps and FuseTIR do the work; here layer names are carried through them as attributes of the calls, and
reshapes are kept apart, since the memory plan turns them into the same bytes under another shape.
Where: after ``lower_binary``.
"""

from __future__ import annotations

import tvm
from tvm import ir, relax
from tvm.relax import PyExprMutator, expr_functor

from bnn_deploy.passes.relax.rewriter import layer_identifier, main_bindings, operator_name

_ALIASES = ["relax.reshape"]


def fuse_float(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring. Adds the attribute ``kernel_layers``: fused kernel -> joined layer names."""
    attributes = dict(module.attrs.items())
    module = relax.transform.LegalizeOps(skip_ops=_ALIASES)(module)
    module = _tagged(module, attributes["layer_names"])
    module = relax.transform.AnnotateTIROpPattern()(module)
    module = relax.transform.FuseOps()(module)
    layers = _fused_layers(module)
    module = relax.transform.FuseTIR()(module)
    module = relax.transform.CanonicalizeBindings()(module)
    module = relax.transform.DeadCodeElimination()(module)
    return module.with_attrs(attributes | {"kernel_layers": layers})


def _tagged(module: tvm.IRModule, layer_names: dict[str, str]) -> tvm.IRModule:
    @expr_functor.mutator
    class Tag(PyExprMutator):
        def visit_var_binding_(self, binding: relax.VarBinding) -> None:
            value = binding.value
            if operator_name(value) == "relax.call_tir" and value.attrs is None:
                identifier = layer_identifier(binding.var)
                layer = str(layer_names.get(identifier, identifier))
                attributes = ir.make_node("ir.DictAttrs", layer=layer, kind="float", binary_macs=0)
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
