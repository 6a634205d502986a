"""Write group norm out as means, so that it keeps the accuracy of float32.

Before::

    y = group_norm(x: (1, 56, 56, 64), gamma, beta, num_groups=1)
After::

    m = mean(mean(mean(x, W), H), C);  d = x - m;  v = mean(mean(mean(d * d, W), H), C)
    y = d / sqrt(v + eps) * gamma + beta

TVM's own kernel adds 200,704 numbers one after the other, and takes the variance as E[x^2] - E[x]^2: in BiMLP-M its error
passed the margins of later thresholds and flipped bits. Means axis by axis add at most a row of numbers each, and the
variance of centred values does not cancel.
Where: after ``to_channels_last``, which sets the axes; before ``fuse_float``, which joins the elementwise part again.
Not handled: group norms that stayed channels first; TVM's kernel computes them.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import operator_name, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_ROWS, _COLUMNS = 1, 2


def decompose_group_norm(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _DecomposeGroupNorm(module).run()


class _DecomposeGroupNorm(DataflowRewriter):
    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if operator_name(value) != "relax.nn.group_norm":
            return None
        x, gamma, beta = (self.lookup(argument) for argument in value.args)
        shape = static_shape(value.args[0])
        if len(shape) != 4 or int(value.attrs.channel_axis) != 3:
            return None
        batch, height, width, channels = shape
        groups = int(value.attrs.num_groups)
        if groups > 1:
            # One group keeps the shape of an image, so that stages of rows can hold it.
            x = self.emit(relax.op.reshape(x, (batch, height, width, groups, channels // groups)))
        axes = (_COLUMNS, _ROWS, len(static_shape(x)) - 1)
        centred = self.emit(relax.op.subtract(x, self._mean(x, axes)))
        variance = self._mean(self.emit(relax.op.multiply(centred, centred)), axes)
        epsilon = relax.const(np.float32(float(value.attrs.epsilon)))
        deviation = self.emit(relax.op.sqrt(self.emit(relax.op.add(variance, epsilon))))
        normal = self.emit(relax.op.divide(centred, deviation))
        flat = self.emit(relax.op.reshape(normal, shape)) if groups > 1 else normal
        scaled = self.emit(relax.op.multiply(flat, gamma))
        return self.emit(relax.op.add(scaled, beta))

    def _mean(self, x: relax.Expr, axes: tuple[int, ...]) -> relax.Expr:
        for axis in axes:
            x = self.emit(relax.op.mean(x, [axis], keepdims=True))
        return x
