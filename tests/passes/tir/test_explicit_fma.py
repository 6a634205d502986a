"""explicit_fma: products in sums become fused multiply-adds, which round once."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.targets.registry import get_target, host_target
from tests.passes.execute import run_function
from tests.passes.networks import build

HOST = host_target()
SHAPE = (4, 24)


def only(body: object) -> tirx.PrimFunc:
    module = fuse_float(build([SHAPE] * 3, body))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return function


def exact_fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``a * b + c`` rounded once, from exact fractions."""

    def rounded(x: float, y: float, z: float) -> np.float32:
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        near = np.float32(float(exact))
        around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
        return min(around, key=lambda value: abs(Fraction(float(value)) - exact))

    return np.array([rounded(*row) for row in zip(a.ravel(), b.ravel(), c.ravel(), strict=True)], np.float32).reshape(
        a.shape
    )


SUMS = {
    "product + c": (lambda e, a, b, c: relax.op.add(e(relax.op.multiply(a, b)), c), lambda a, b, c: exact_fma(a, b, c)),
    "c + product": (lambda e, a, b, c: relax.op.add(c, e(relax.op.multiply(a, b))), lambda a, b, c: exact_fma(a, b, c)),
    "product - c": (
        lambda e, a, b, c: relax.op.subtract(e(relax.op.multiply(a, b)), c),
        lambda a, b, c: exact_fma(a, b, -c),
    ),
    "c - product": (
        lambda e, a, b, c: relax.op.subtract(c, e(relax.op.multiply(a, b))),
        lambda a, b, c: exact_fma(-a, b, c),
    ),
    "two products": (
        lambda e, a, b, c: relax.op.add(e(relax.op.multiply(a, b)), e(relax.op.multiply(b, c))),
        lambda a, b, c: exact_fma(a, b, b * c),
    ),
}


def test_sums_of_products_round_once() -> None:
    """Breaks: the bits of a float layer depend on what LLVM happened to contract, and so on the target."""
    arrays = [np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in range(3)]
    for name, (body, expected) in SUMS.items():
        for target in (HOST, get_target("x86-64-v3")):
            found = run_function(schedule_float(only(body), target), HOST, *arrays, np.zeros(SHAPE, np.float32))[-1]
            np.testing.assert_array_equal(found, expected(*arrays), err_msg=name)


def test_sums_without_products_stay() -> None:
    """Breaks: integer indices or plain sums are rewritten."""
    scheduled = schedule_float(only(lambda e, a, b, c: relax.op.add(e(relax.op.add(a, b)), c)), HOST)
    assert "llvm.fma" not in scheduled.script()
