"""Say of every float product whether the sum that it goes into rounds it: in the update of a reduction, and nowhere else.

Before::

    for k: y[c] = y[c] + a[c, k] * b[k]
    z[c] = y[c] * d[c] + e[c]
After::

    for k: y[c] = fma(a[c, k], b[k], y[c])
    z[c] = fence(y[c] * d[c]) + e[c]

LLVM may contract a product and a sum or leave them, and decides otherwise for another vector length, processor or border of a
kernel. Written out, a network computes the same bits on every target, and what a value is does not depend on which operators
share a kernel: ``docs/arithmetic.md`` says it operator by operator. ``llvm.arithmetic.fence`` is no instruction; LLVM only
does not look through it. Divisions have one too, since LLVM multiplies in place of dividing by a power of two, and so has
``pow``, of which it makes ``x * x``.
Where: first in ``schedule_float`` and ``schedule_gpu``, while every operator is a block of its own.
Not handled: products of whole numbers and those with 1 and -1, which are exact.
"""

from __future__ import annotations

from functools import cache

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import Call, Expr
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import rounded

_EXACT = (1.0, -1.0)


def rounded_products(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one kernel that is not scheduled yet."""
    body = tvm_ffi.structural_map(function.body, (s_tir.SBlock, _with_fused_update))
    rules = [(tirx.Mul, _product), (tirx.Div, _quotient), (Call, _power), (tirx.Select, _choice)]
    return tirx.PrimFunc(function.params, tvm_ffi.structural_map(body, rules), function.ret_type, function.attrs)


def fused_operands(value: Expr) -> tuple[Expr, Expr, Expr] | None:
    """(a, b, c) of ``fma(a, b, c)``; None of everything else."""
    return tuple(value.args[1:]) if _is_intrinsic(value, "llvm.fma") else None


def fenced_value(value: Expr) -> Expr | None:
    """What ``rounded`` was given; None if that made no fence."""
    return value.args[1] if _is_intrinsic(value, "llvm.arithmetic.fence") else None


def _with_fused_update(block: s_tir.SBlock) -> s_tir.SBlock:
    if block.init is None:
        return block
    written = [region.source for region in block.writes]

    def fused(total: tirx.Add) -> Expr:
        before, term = total.a, total.b
        own = isinstance(before, ir.TensorLoad) and any(before.source.same_as(buffer) for buffer in written)
        if not own or not isinstance(term, tirx.Mul) or not _is_float(term):
            return total
        return T.call_llvm_pure_intrin(str(term.ty.dtype), "llvm.fma", term.a, term.b, before)

    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        tvm_ffi.structural_map(block.body, (tirx.Add, fused)),
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )


def _product(value: tirx.Mul) -> Expr:
    exact = any(isinstance(factor, tirx.FloatImm) and float(factor.value) in _EXACT for factor in (value.a, value.b))
    return rounded(value) if _is_float(value) and not exact else value


def _quotient(value: tirx.Div) -> Expr:
    return rounded(value) if _is_float(value) else value


def _power(call: Call) -> Expr:
    return rounded(call) if getattr(call.op, "name", "") == "tirx.pow" and _is_float(call) else call


def _choice(value: tirx.Select) -> Expr:
    """One fence behind the choice, so that AVX-512 still computes a PReLU's product under the mask that chooses it."""
    bare = [fenced_value(side) for side in (value.true_value, value.false_value)]
    if bare == [None, None]:
        return value
    sides = [
        side if inner is None else inner
        for side, inner in zip((value.true_value, value.false_value), bare, strict=True)
    ]
    return rounded(T.Select(value.condition, *sides))


def _is_float(value: Expr) -> bool:
    return str(value.ty.dtype).startswith("float")


def _is_intrinsic(value: Expr, name: str) -> bool:
    pure = isinstance(value, Call) and getattr(value.op, "name", "") == "tirx.call_llvm_pure_intrin"
    return pure and int(value.args[0].value) == _identifier(name)


@cache
def _identifier(name: str) -> int:
    return int(llvm_lookup_intrinsic_id(name))
