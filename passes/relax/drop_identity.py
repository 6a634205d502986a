"""Remove data movement that moves nothing.

Before::

    y = strided_slice(x, axes=[0], begin=[0], end=[INT64_MAX], strides=[1]);  z = strided_slice(y, axes=[1], …)
After::

    z = strided_slice(x, axes=[1], …)

torch.export writes ``x[:, ::2]`` as one slice per axis, most of which take everything.
Where: before the layout and packing passes, which would carry these slices along.
Not handled: movement that later movement undoes, as two transposes.
"""

from __future__ import annotations

import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import integers, operator_name, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_MOVEMENT = ("relax.strided_slice", "relax.reshape", "relax.broadcast_to", "relax.concat")


def drop_identity(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _DropIdentity(module).run()


class _DropIdentity(DataflowRewriter):
    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        name = operator_name(value)
        if name not in _MOVEMENT:
            return None
        source = value.args[0]
        if name == "relax.concat":
            if len(source.fields) != 1:
                return None
            source = source.fields[0]
        if static_shape(source) != static_shape(variable):
            return None
        # Of the same extent, a slice with a positive step takes everything; a negative one reverses.
        if name == "relax.strided_slice" and any(step < 0 for step in integers(value.args[4])):
            return None
        return self.lookup(source)
