"""Make one binary layer of neighbouring ones whose outputs are concatenated.

Before (BCDNet and ReActNet, where channels double: two layers with as many outputs as inputs)::

    y = add(bnn.packed_conv2d(p, w0, …), x);  z = add(bnn.packed_conv2d(p, w1, …), x);  o = concat(y, z, axis=3)
After::

    o = add(bnn.packed_conv2d(p, [w0, w1], …), concat(x, x, axis=3))

Output channels are independent, so that this computes the same sums. What follows the concatenation then follows a layer, and
its kernel can compute it (``fuse_epilogue``, which reads the repeated shortcut where it lies).
Where: after ``pack`` and ``to_channels_last``; before ``block_rows``.
Not handled: layers of several groups, other words or geometry, and shortcuts that differ.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import ConvolutionAttributes
from bnn_deploy.passes.relax.expressions import (
    constant_array,
    is_constant,
    layer_identifier,
    operator_name,
    static_shape,
)
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_CHANNELS = 3


def merge_layers(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring. Adds the joined names of merged layers to the attribute ``layer_names``."""
    rewriter = _MergeLayers(module)
    merged = rewriter.run()
    return merged.with_attr("layer_names", rewriter.layer_names)


class _MergeLayers(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.layer_names = {str(key): str(name) for key, name in module.attrs["layer_names"].items()}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if operator_name(value) != "relax.concat" or int(value.attrs.axis) % 4 != _CHANNELS:
            return None
        fields = value.args[0].fields
        found = [branch for branch in map(self._branch, fields) if branch is not None]
        if len(found) < 2 or len(found) < len(fields):
            return None
        layers, shortcuts = [layer for layer, _ in found], [shortcut for _, shortcut in found]
        calls = [self.values[layer] for layer in layers]
        if len(set(layers)) != len(layers) or not _are_alike(calls):
            return None
        if any(
            (s is None) != (shortcuts[0] is None) or (s is not None and not s.same_as(shortcuts[0])) for s in shortcuts
        ):
            return None
        self._name = self._joined_name(layers)
        parameters = [relax.const(np.concatenate([constant_array(c.args[i]) for c in calls])) for i in (1, 2, 3)]
        merged = self.emit(relax.Call(calls[0].op, [self.lookup(calls[0].args[0]), *parameters], calls[0].attrs))
        if shortcuts[0] is None:
            return merged
        self._name = layer_identifier(fields[0])
        shortcut = self.lookup(shortcuts[0])
        repeated = self.emit(relax.op.concat([shortcut] * len(layers), axis=_CHANNELS))
        return self.emit(relax.op.add(merged, repeated))

    def _branch(self, field: relax.Expr) -> tuple[relax.Var, relax.Var | None] | None:
        """A layer, or the sum of a layer and a shortcut of its shape, that nothing else reads."""
        if self.uses.get(field, 0) != 1:
            return None
        if self.producer(field, "bnn.packed_conv2d") is not None:
            return field, None
        total = self.producer(field, "relax.add")
        if total is None:
            return None
        for layer, shortcut in (total.args, reversed(total.args)):
            alone = self.producer(layer, "bnn.packed_conv2d") is not None and self.uses[layer] == 1
            if alone and isinstance(shortcut, relax.Var) and static_shape(shortcut) == static_shape(field):
                return layer, shortcut
        return None

    def _joined_name(self, layers: list[relax.Var]) -> str:
        identifiers = [layer_identifier(layer) for layer in layers]
        joined = "__".join(identifiers)
        self.layer_names[joined] = " + ".join(self.layer_names.get(i, i) for i in identifiers)
        return joined


def _are_alike(calls: list[relax.Call]) -> bool:
    """Whether the layers read the same words in the same way, with constant parameters."""
    first = calls[0]
    return all(
        call.args[0].same_as(first.args[0])
        and all(is_constant(parameter) for parameter in call.args[1:])
        and ConvolutionAttributes.of(call) == ConvolutionAttributes.of(first)
        and ConvolutionAttributes.of(call).group == 1
        for call in calls
    )
