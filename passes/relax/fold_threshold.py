"""Fold a bias before a sign into the sign's threshold.

Before::

    y = add(x, b);       s = bnn.sign(y, 0)         y = subtract(x, b);  s = bnn.sign(y, 0)
After::

    s = bnn.sign(x, -b)                             s = bnn.sign(x, b)

Where: after ``fold_constants``; before ``fold_affine``, which would otherwise pull the bias into a batch norm and round it.
Exact: in IEEE arithmetic with gradual underflow x + b > 0 holds just when x > -b (and so for x - b, for <, and for >= except
where x and b are infinite and cancel to NaN). So a sign that is 0 at its threshold is 0 for the same x.
Not handled: sign(x + b, t) with t != 0, and bnn.ternary(x + b), whose boundaries +-0.5 would round; the add stays.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.expressions import constant_array, is_constant, operator_name
from bnn_deploy.passes.relax.rewriter import DataflowRewriter


def fold_threshold(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _FoldThreshold(module).run()


class _FoldThreshold(DataflowRewriter):
    def rewrite(self, variable: relax.Var, value: relax.Call) -> relax.Expr | None:
        if operator_name(value) != "bnn.sign" or not _is_zero(value.args[1]):
            return None
        biased = self.producer(value.args[0], "relax.add", "relax.subtract")
        if biased is None:
            return None
        x, bias = biased.args
        if is_constant(x) and operator_name(biased) == "relax.add":
            x, bias = bias, x
        if not _broadcasts_into(bias, x):
            return None
        threshold = self.lookup(bias) if operator_name(biased) == "relax.subtract" else self._negative(bias)
        return self.emit(call("bnn.sign", [self.lookup(x), threshold], dict(value.attrs.items())))

    def _negative(self, bias: relax.Expr) -> relax.Expr:
        if is_constant(bias):
            return relax.const(-constant_array(bias))
        return self.emit(relax.op.negative(self.lookup(bias)))


def _is_zero(expression: relax.Expr) -> bool:
    return is_constant(expression) and not np.any(constant_array(expression))


def _broadcasts_into(bias: relax.Expr, x: relax.Expr) -> bool:
    """Whether ``x (+) bias`` has the shape of ``x``: constant over space, one value per channel (and per image) or one.

    Anything else, a residual say, is an addition and stays one: a kernel compares with a threshold per channel.
    """
    shape = [int(extent) for extent in x.ty.shape.values]
    other = [int(extent) for extent in bias.ty.shape.values]
    other = [1] * (len(shape) - len(other)) + other
    if len(other) > len(shape) or any(b not in (1, a) for a, b in zip(shape, other, strict=True)):
        return False
    # Rows of features, (N, K) or (N, T, K), have one channel axis, the last; images have axis 1.
    return all(extent == 1 for extent in (other[2:] if len(shape) == 4 else other[:-1]))
