"""Write sigmoid and tanh with exponentials, which ``vector_math`` and ``device_math`` compute.

Before::

    y[c] = sigmoid(a[c]) + tanh(b[c])
After::

    y[c] = 1 / (1 + exp(-a[c])) + Select(b[c] < 0, -t, t)        t = (1 - exp(-2 * abs(b[c]))) / (1 + exp(-2 * abs(b[c])))

TVM writes them in much the same way, but later, with the exponential of the C library.
Where: first in ``schedule_float`` and ``schedule_gpu``.
Not handled: other floats than float32.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr
from tvm.tirx.script import builder as T

_FLOAT = "float32"


def exponential_functions(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel."""
    body = tvm_ffi.structural_map(function.body, (Call, _written))
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _written(call: Call) -> Expr:
    name = getattr(call.op, "name", "")
    if name not in ("tirx.sigmoid", "tirx.tanh") or str(call.ty.dtype) != _FLOAT:
        return call
    (x,) = call.args
    one, minus = T.FloatImm(_FLOAT, 1), T.FloatImm(_FLOAT, -1)
    if name == "tirx.sigmoid":
        return one / (one + T.exp(x * minus))
    power = T.exp(T.fabs(x) * T.FloatImm(_FLOAT, -2))
    magnitude = (one - power) / (one + power)
    return T.Select(x < T.FloatImm(_FLOAT, 0), magnitude * minus, magnitude)
