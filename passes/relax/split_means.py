"""Take the mean of an image axis by axis: along each row first, then over the rows.

Before::

    m = mean(x: (1, 56, 56, 64), axis=[1, 2]): (1, 1, 1, 64)
After::

    r = mean(x, axis=[2]): (1, 56, 1, 64);  m = mean(r, axis=[1])

The means of the rows belong to the stage that computes the rows, and the image itself is not read again; only the short
second mean waits for all rows. Sums of a row, and of rows, are also more exact than one long sum.
Where: after ``to_channels_last``, which sets the axes; before ``block_rows``.
Not handled: means that drop their axes, or over other axes.
"""

from __future__ import annotations

import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import operator_name, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_ROWS, _COLUMNS = 1, 2


def split_means(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _SplitMeans(module).run()


class _SplitMeans(DataflowRewriter):
    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if operator_name(value) != "relax.mean" or not bool(value.attrs.keepdims) or value.attrs.axis is None:
            return None
        rank = len(static_shape(value.args[0]))
        if rank != 4 or sorted(int(axis) % rank for axis in value.attrs.axis) != [_ROWS, _COLUMNS]:
            return None
        rows = self.emit(relax.op.mean(self.lookup(value.args[0]), [_COLUMNS], keepdims=True))
        return self.emit(relax.op.mean(rows, [_ROWS], keepdims=True))
