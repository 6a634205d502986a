"""Compute sin, cos and exp by polynomials that fill vectors, in place of one call of the C library per element.

Before::

    for c in vectorized(64): y[c] = a[c] * cos(x[c])
After::

    for c in vectorized(64): magnitude[c] = bits(abs(x[c]))
    if max(magnitude) < bits(2**17):
        for c in vectorized(64): y[c] = a[c] * <polynomials of x[c] - n * pi / 2, reduced in float32>
    else:
        for c in range(64): y[c] = a[c] * <the same polynomials, reduced in float64>

Products in sums are explicit fused multiply-adds, so all targets and all C libraries (glibc, musl) give the same bits.
The sine and the cosine of one value share their reduction: LLVM merges equal expressions.

Bounds, measured by the test against float64: sin and cos 2 ulp for every finite float, exp 1.25 ulp and correct overflow and
subnormal results. Infinities give NaN (sin, cos) or infinity and 0 (exp); NaN stays NaN.

The float32 reduction is Cody and Waite's with three parts of pi / 2: with a fused multiply-add the first difference is exact
while its result is below 1, and the product with 2 / pi rounds to the nearest n, but for at most 0.01, below 2**17. Beyond,
``x = m * 2**(21 * q)`` with ``m < 2**44``, and ``2**(21 * q) * 2 / pi`` is tabulated modulo 4 turns of a quarter in two float64,
whose error after the product with m is below 2**-54.
Where: in ``schedule_float``, after loops became vectors.
Not handled: other floats than float32; the C library computes them.
"""

from __future__ import annotations

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Call, Expr
from tvm.tirx.script import builder as T

from bnn_deploy.targets.kernels.vector import rounded

# The float32 reduction is exact enough below this.
REDUCTION_BOUND = 2.0**17
_BOUND_BITS = (127 + 17) << 23

HALF_PI = ("0x1.921fb6p+0", "-0x1.777a5cp-25", "-0x1.ee59dap-50")
TWO_OVER_PI = "0x1.45f306p-1"
# Adding and subtracting 1.5 * 2**23 rounds to a whole number, which then stands in the lowest bits.
ROUNDER = 12582912.0
ROUNDER_BITS = 0x4B400000
# Minimax on [-0.8, 0.8] (Lawson's algorithm, coefficients rounded one after another): relative errors 2**-27.7 and 2**-32.6.
SINE = (-0.16666653752326965, 0.008332095108926296, -0.00019505539967212826)
COSINE = (-0.5, 0.04166664183139801, -0.0013887130189687014, 2.4412080165348016e-05)
# Quarter turns per unit: 2**(21 * q) * 2 / pi modulo 4, for q = 0 to 4.
QUARTERS = (
    ("0x1.45f306dc9c883p-1", "-0x1.6b01ec5417056p-55"),
    ("0x1.b727220a94fe1p-2", "0x1.d5f47d4d37703p-57"),
    ("0x1.1054a7f09d5f4p+0", "0x1.f534ddc0db629p-54"),
    ("0x1.fc2757d1f534ep-1", "-0x1.1f924eb53361ep-56"),
    ("0x1.7d1f534ddc0dbp+0", "0x1.8a5664f10e410p-54"),
)
# A float from 2**44 on is a multiple of 2**21, so that m is whole.
QUARTER_STEP, QUARTER_BITS = 21, 44

LN_2 = ("0x1.62e430p-1", "-0x1.05c610p-29")
LOG2_E = "0x1.715476p+0"
# Minimax of exp(r) = 1 + r + r**2 * (…) on [-ln(2) / 2, ln(2) / 2], relative error 2**-28.2.
EXPONENTIAL = (
    0.4999999403953552,
    0.1666652113199234,
    0.041668277233839035,
    0.008368686772882938,
    0.0013819823507219553,
)
# Beyond these exp is infinite or rounds to 0; halves of the exponent then still fit into floats.
EXPONENTIAL_RANGE = (-104.0, 89.0)

_TRIGONOMETRIC = ("tirx.sin", "tirx.cos")


def vector_math(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Run the pass on one scheduled kernel."""
    body = tvm_ffi.structural_map(function.body, (tirx.For, _with_reduction_chosen))
    body = tvm_ffi.structural_map(body, (Call, lambda call: _expanded(call, wide=True)))
    return tirx.PrimFunc(function.params, body, function.ret_type, function.attrs)


def _with_reduction_chosen(loop: tirx.For) -> tirx.Stmt:
    """A vectorised loop with sines looks at its arguments first; other sines are left for the wide reduction."""
    realize = loop.body
    if int(loop.kind) != tirx.ForKind.VECTORIZED or not isinstance(realize, s_tir.SBlockRealize):
        return loop
    arguments = _arguments(realize.block.body)
    if not arguments or realize.block.init is not None or realize.block.alloc_buffers:
        return loop
    values = {variable.var: value for variable, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)}

    def plain(value: object) -> object:
        return tvm_ffi.structural_map(value, (tirx.Var, lambda variable: values.get(variable, variable)))

    body, lanes = plain(realize.block.body), int(loop.extent)
    magnitude = tirx.decl_buffer((lanes,), "int32", "magnitude")
    largest = None
    for argument in arguments:
        bits = _bits(plain(argument)) & 0x7FFFFFFF
        largest = bits if largest is None else T.max(largest, bits)
    maximum = T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", magnitude[T.ramp(0, 1, lanes)])
    narrow = tvm_ffi.structural_map(body, (Call, lambda call: _expanded(call, wide=False)))
    return tirx.SeqStmt(
        [
            tirx.AllocBuffer(magnitude),
            _loop(loop, tirx.BufferStore(magnitude, largest, [loop.loop_var]), loop.kind),
            tirx.IfThenElse(
                maximum < _BOUND_BITS, _loop(loop, narrow, loop.kind), _loop(loop, body, tirx.ForKind.SERIAL)
            ),
        ]
    )


def _loop(like: tirx.For, body: tirx.Stmt, kind: int) -> tirx.For:
    """The same loop with another body, under a variable of its own."""
    variable = tirx.Var(like.loop_var.name, like.loop_var.ty)
    renamed = tvm_ffi.structural_map(body, (tirx.Var, lambda v: variable if v.same_as(like.loop_var) else v))
    return tirx.For(variable, like.min, like.extent, kind, renamed)


def _arguments(body: tirx.Stmt) -> list[Expr]:
    """What sines and cosines are taken of, each once; none when some are only computed under a condition."""
    arguments: list[Expr] = []
    conditions = []

    def visit(call: Call) -> None:
        name = getattr(call.op, "name", "")
        if name in _TRIGONOMETRIC and not any(tvm_ffi.structural_equal(call.args[0], a) for a in arguments):
            arguments.append(call.args[0])
        if name == "prim.if_then_else":
            conditions.append(call)

    tvm_ffi.structural_walk(body, (Call, visit))
    return [] if conditions else arguments


def _expanded(call: Call, wide: bool) -> Expr:
    name = getattr(call.op, "name", "")
    if name not in (*_TRIGONOMETRIC, "tirx.exp") or str(call.ty.dtype) != "float32":
        return call
    if name in _TRIGONOMETRIC:
        return _trigonometric(call.args[0], name == "tirx.cos", wide)
    return _exponential(call.args[0])


def _trigonometric(argument: Expr, cosine: bool, wide: bool) -> Expr:
    x, turns, rest, square = (tirx.Var(name, "float32") for name in ("x", "turns", "rest", "square"))
    absolute = _float(_bits(x) & 0x7FFFFFFF)
    # sin(x + pi / 2) = cos(x): a cosine is one quarter turn ahead.
    quarter = _bits(turns) + 1 if cosine else _bits(turns)
    sine = _fma(_polynomial(SINE, square) * square, rest, rest)
    value = T.Select((quarter & 1) == 1, _fma(_polynomial(COSINE, square), square, _number(1)), sine)
    flipped = _bits(value) ^ ((quarter & 2) << 30)
    if not cosine:
        flipped = flipped ^ (_bits(x) & -0x80000000)
    result = tirx.Let(square, rest * rest, _float(flipped))
    steps, reduced = turns - _number(ROUNDER), absolute
    for part in HALF_PI:
        reduced = _fma(steps, _number(-float.fromhex(part)), reduced)
    nearest = _fma(absolute, _number(float.fromhex(TWO_OVER_PI)), _number(ROUNDER))
    if not wide:
        return tirx.Let(x, argument, tirx.Let(turns, nearest, tirx.Let(rest, reduced, result)))
    m, high, low, whole = (tirx.Var(name, "float64") for name in ("m", "high", "low", "whole"))
    scaled, first, second = _quarters(T.Cast("float64", absolute))
    # The number of quarter turns modulo 4, as a float with the same lowest bits as above.
    turned = T.floor(whole * _number(0.25, "float64"))
    modulo = T.Cast("float32", _fma(turned, _number(-4, "float64"), whole))
    fraction = _fma(m, low, _fma(m, high, -whole))
    radians = T.Cast("float32", fraction * _number(float.fromhex("0x1.921fb54442d18p+0"), "float64"))
    # An element's bits must not depend on its neighbours: what the narrow reduction can do, it does here too.
    small = absolute < _number(REDUCTION_BOUND)
    result = tirx.Let(rest, T.Select(small, reduced, radians), result)
    result = tirx.Let(turns, T.Select(small, nearest, modulo + _number(ROUNDER)), result)
    result = tirx.Let(whole, T.call_llvm_pure_intrin("float64", "llvm.rint", m * high), result)
    return tirx.Let(x, argument, tirx.Let(m, scaled, tirx.Let(high, first, tirx.Let(low, second, result))))


def _quarters(x: Expr) -> tuple[Expr, Expr, Expr]:
    """``x`` as m, and what m is multiplied by to count quarter turns modulo 4, in two parts."""
    scaled = x
    high, low = (_number(float.fromhex(part), "float64") for part in QUARTERS[0])
    for power in range(1, len(QUARTERS)):
        beyond = x >= _number(2.0 ** (QUARTER_BITS + QUARTER_STEP * (power - 1)), "float64")
        scaled = T.Select(beyond, x * _number(2.0 ** (-QUARTER_STEP * power), "float64"), scaled)
        high = T.Select(beyond, _number(float.fromhex(QUARTERS[power][0]), "float64"), high)
        low = T.Select(beyond, _number(float.fromhex(QUARTERS[power][1]), "float64"), low)
    return scaled, high, low


def _exponential(argument: Expr) -> Expr:
    x, bounded, turns, rest = (tirx.Var(name, "float32") for name in ("x", "bounded", "turns", "rest"))
    power = tirx.Var("power", "int32")
    least, most = (_number(bound) for bound in EXPONENTIAL_RANGE)
    # NaN is neither below nor above, and stays.
    clamped = T.Select(x < least, least, T.Select(x > most, most, x))
    steps, reduced = turns - _number(ROUNDER), bounded
    for part in LN_2:
        reduced = _fma(steps, _number(-float.fromhex(part)), reduced)
    value = _fma(_polynomial(EXPONENTIAL, rest) * rest, rest, rest) + _number(1)
    half = power >> 1
    scales = [_float((exponent + 127) << 23) for exponent in (half, power - half)]
    result = tirx.Let(power, _bits(turns) - ROUNDER_BITS, rounded(value * scales[0] * scales[1]))
    nearest = _fma(bounded, _number(float.fromhex(LOG2_E)), _number(ROUNDER))
    result = tirx.Let(turns, nearest, tirx.Let(rest, reduced, result))
    return tirx.Let(x, argument, tirx.Let(bounded, clamped, result))


def _polynomial(coefficients: tuple[float, ...], x: Expr) -> Expr:
    value = _number(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = _fma(value, x, _number(coefficient))
    return value


def _fma(a: Expr, b: Expr, c: Expr) -> Expr:
    return T.call_llvm_pure_intrin(str(a.ty.dtype), "llvm.fma", a, b, c)


def _number(value: float, element: str = "float32") -> Expr:
    return T.FloatImm(element, value)


def _bits(value: Expr) -> Expr:
    return T.reinterpret("int32", value)


def _float(bits: Expr) -> Expr:
    return T.reinterpret("float32", bits)
