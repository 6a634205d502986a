"""Name every variable after the layer it belongs to.

Before::

    lv3 = matmul(x, w);  head_ = add(lv3, b);  lv5 = batch_norm(..)[0]      layer_names: {head: head, lv5: features.1.bn}
After::

    head_ = matmul(x, w);  head_1 = add(..);  features_1_bn_ = batch_norm(..)[0]

TVM's front end gives no names to what it emits inside one ONNX node, nor to results it emitted itself (the importer notes
those by variable). A nameless value belongs to the node that follows it.
Where: first of the Relax passes; all others keep names.
Not handled: what follows the last named node has no layer; rewriters give it that of the layer before it.
"""

from __future__ import annotations

import re

import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import layer_identifier
from bnn_deploy.passes.relax.rewriter import DataflowRewriter


def name_layers(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _NameLayers(module).run()


class _NameLayers(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        noted = {str(key): str(layer) for key, layer in module.attrs["layer_names"].items()}
        self.layers: dict[str, str] = {}
        self.identifiers: dict[relax.Var, str] = {}
        following = ""
        for binding in reversed(self.bindings):
            variable = binding.var
            layer = noted.get(layer_identifier(variable) or variable.name)
            if layer is not None:
                following = self._identifier(layer)
            self.identifiers[variable] = following
        self.module = module.with_attr("layer_names", self.layers)

    def _identifier(self, layer: str) -> str:
        identifier = re.sub(r"\W", "_", layer)
        while self.layers.get(identifier, layer) != layer:
            identifier += "_"
        self.layers[identifier] = layer
        return identifier

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        self._name = self.identifiers[variable]
        return None
