"""Write every float32 product that goes into a sum as one fused multiply-add.

Before::

    y[c] = a[c] * b[c] + d[c] - e[c] * f[c]
After::

    y[c] = fma(-e[c], f[c], fma(a[c], b[c], d[c]))

LLVM may contract a product and a sum or leave them, and decides differently for another vector length or processor; written
out, the same model computes the same bits on every target. In a sum of two products the first one is fused.
Where: last in ``schedule_float``.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T


def explicit_fma(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel."""
    body = tvm_ffi.structural_map(function.body, [(tirx.Add, _sum), (tirx.Sub, _difference)])
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _sum(expression: tirx.Add) -> Expr:
    a, b = expression.a, expression.b
    if _is_product(a):
        return _fma(a.a, a.b, b)
    return _fma(b.a, b.b, a) if _is_product(b) else expression


def _difference(expression: tirx.Sub) -> Expr:
    a, b = expression.a, expression.b
    if _is_product(a):
        return _fma(a.a, a.b, _negative(b))
    return _fma(_negative(b.a), b.b, a) if _is_product(b) else expression


def _is_product(value: Expr) -> bool:
    return isinstance(value, tirx.Mul) and str(value.ty.dtype) == "float32"


def _negative(value: Expr) -> Expr:
    return value * T.FloatImm("float32", -1)


def _fma(a: Expr, b: Expr, c: Expr) -> Expr:
    return T.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)
