"""What a GPU's float operators are called and mean there, so that they give a processor's bits.

Before::

    y[i] = max(cos(x[i]), 0)
After::

    y[i] = Select(bnn_cos(x[i]) > 0, bnn_cos(x[i]), 0)

``bnn_sin``, ``bnn_cos`` and ``bnn_exp`` are ``vector_math``'s polynomials as functions (``targets/cuda/float_functions.cuh``).
CUDA's ``max`` and ``min`` of floats take the number where the other is NaN, and the positive zero; LLVM's code compares and
chooses, which is what stands here.
Where: last in ``schedule_gpu``.
Not handled: functions of other floats than float32; CUDA's own stay.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr
from tvm.tirx.script import builder as T

_FUNCTIONS = {"tirx.sin": "bnn_sin", "tirx.cos": "bnn_cos", "tirx.exp": "bnn_exp"}


def device_math(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel."""
    body = tvm_ffi.structural_map(function.body, [(Call, _call), (tirx.Max, _larger), (tirx.Min, _smaller)])
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _call(call: Call) -> Expr:
    name = getattr(call.op, "name", "")
    if name == "tirx.rsqrt":
        # Both rounded correctly, as on processors; CUDA's rsqrtf is an approximation.
        return T.FloatImm(str(call.ty.dtype), 1) / T.sqrt(call.args[0])
    if name not in _FUNCTIONS or str(call.ty.dtype) != "float32":
        return call
    return T.call_extern("float32", _FUNCTIONS[name], call.args[0])


def _larger(expression: tirx.Max) -> Expr:
    a, b = expression.a, expression.b
    return T.Select(a > b, a, b) if _is_float(expression) else expression


def _smaller(expression: tirx.Min) -> Expr:
    a, b = expression.a, expression.b
    return T.Select(a < b, a, b) if _is_float(expression) else expression


def _is_float(value: Expr) -> bool:
    return str(value.ty.dtype).startswith("float")
