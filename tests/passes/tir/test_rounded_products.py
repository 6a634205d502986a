"""rounded_products: products round by themselves wherever kernels begin and end, and with the sum of a reduction."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir import rounded_products as pass_module
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.schedule_gpu import schedule_gpu
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import get_target, host_target
from tests.passes.contraction import compiled, contractible, unexplained
from tests.passes.execute import run_function
from tests.passes.networks import build

HOST = host_target()
SHAPE = (4, 24)


def only(shapes: list[tuple[int, ...]], body: Callable[..., relax.Expr]) -> tirx.PrimFunc:
    module = fuse_float(build(shapes, body))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return function


def multiplied(e: Callable[..., relax.Var], a: relax.Expr, b: relax.Expr) -> relax.Var:
    return e(relax.op.multiply(a, b))


def chosen(e: Callable[..., relax.Var], x: relax.Var) -> relax.Var:
    return e(relax.op.nn.leakyrelu(x, 0.3))


# What one kernel computes of three arrays; numpy rounds after every operation.
ELEMENTWISE = {
    "product + c": (
        lambda e, a, b, c: relax.op.add(multiplied(e, a, b), c),
        lambda a, b, c: a * b + c,
    ),
    "c - product": (
        lambda e, a, b, c: relax.op.subtract(c, multiplied(e, a, b)),
        lambda a, b, c: c - a * b,
    ),
    "two products": (
        lambda e, a, b, c: relax.op.add(multiplied(e, a, b), multiplied(e, b, c)),
        lambda a, b, c: a * b + b * c,
    ),
    "leaky relu + c": (
        lambda e, a, b, c: relax.op.add(chosen(e, multiplied(e, a, b)), c),
        lambda a, b, c: np.where(a * b > 0, a * b, a * b * np.float32(0.3)) + c,
    ),
    "power + product": (
        lambda e, a, b, c: relax.op.add(e(relax.op.power(a, relax.const(2.0, "float32"))), multiplied(e, b, c)),
        lambda a, b, c: a * a + b * c,
    ),
}


def test_products_of_elementwise_operators_round_by_themselves() -> None:
    """Breaks: the bits of a value depend on which operators share its kernel, or on what LLVM happened to contract."""
    arrays = [np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in range(3)]
    for name, (body, expected) in ELEMENTWISE.items():
        for target in (HOST, get_target("x86-64-v3")):
            function = schedule_float(only([SHAPE] * 3, body), target)
            found = run_function(function, HOST, *arrays, np.zeros(SHAPE, np.float32))[-1]
            np.testing.assert_array_equal(found, expected(*arrays), err_msg=f"{name} {target.name}")


def exact_fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """``a * b + c`` rounded once, from exact fractions."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = np.float32(float(exact))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(around, key=lambda value: abs(Fraction(float(value)) - exact))


# A vector-matrix product, a register tile, and a shape that neither takes.
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 16, 16), (3, 8, 32), (3, 5, 7)])
def test_sums_of_reductions_round_once_per_term(rows: int, inner: int, columns: int) -> None:
    """Breaks: a matrix product is no chain of fma over k, which other implementations of the arithmetic reproduce."""
    random = np.random.default_rng(rows)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in ((rows, inner), (inner, columns)))
    expected = np.zeros((rows, columns), np.float32)
    for k in range(inner):
        for i, j in np.ndindex(rows, columns):
            expected[i, j] = exact_fma(a[i, k], b[k, j], expected[i, j])
    function = schedule_float(only([a.shape, b.shape], lambda e, x, y: relax.op.matmul(x, y)), HOST)
    found = run_function(function, HOST, a, b, np.zeros((rows, columns), np.float32))[-1]
    np.testing.assert_array_equal(found, expected)


def test_gpu_kernels_say_the_same() -> None:
    """Breaks: GPUs round a matrix product twice per term, or make one rounding of two operators."""
    product = schedule_gpu(only([(3, 8), (8, 32)], lambda e, x, y: relax.op.matmul(x, y)))
    assert "llvm.fma" in product.script()
    body, _ = ELEMENTWISE["product + c"]
    assert "llvm.fma" not in schedule_gpu(only([SHAPE] * 3, body)).script()


def kernels(target: Target) -> tvm.IRModule:
    """All of the above, in vectors of ours (24 channels) and in what LLVM makes of a loop (7)."""
    functions = {}
    for number, (body, _) in enumerate(ELEMENTWISE.values()):
        for channels in (24, 7):
            symbol = f"kernel_{number}_{channels}"
            function = schedule_float(only([(4, channels)] * 3, body), target)
            functions[symbol] = function.with_attr("global_symbol", symbol)
    return tvm.IRModule(functions)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "x86-64-v4-vpopcntdq", "arm64"])
def test_nothing_is_left_to_contract(name: str) -> None:
    """Breaks: in the final code a product reaches a sum, so that the code generator decides how often that rounds."""
    _, target = get_target(name).variants[0]
    code, assembly = compiled(kernels(target), target)
    assert contractible(code) == []
    assert unexplained(code, assembly, target) <= 0


def test_without_fences_products_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the check above would not see that a fence is missing."""
    monkeypatch.setattr(pass_module, "rounded", lambda value: value)
    target = get_target("x86-64-v3")
    code, assembly = compiled(kernels(target), target)
    assert len(contractible(code)) >= 2 * len(ELEMENTWISE)
    assert unexplained(code, assembly, target) > 0
