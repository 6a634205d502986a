"""vector_math: polynomials within their stated bounds of float64, for every kind of float, and no call of the C library."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.vector_math import REDUCTION_BOUND
from bnn_deploy.targets.registry import get_target, host_target
from tests.passes.networks import build

HOST = host_target()
FUNCTIONS = {"sin": (relax.op.sin, np.sin), "cos": (relax.op.cos, np.cos), "exp": (relax.op.exp, np.exp)}
CHANNELS = 64


def scheduled(name: str, rows: int, channels: int, target: object = HOST) -> tirx.PrimFunc:
    module = fuse_float(build([(rows, channels)], lambda emit, x: FUNCTIONS[name][0](x)))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return schedule_float(function, target).with_attr("global_symbol", "kernel")


@cache
def compiled(name: str, rows: int, channels: int) -> Callable[[np.ndarray], np.ndarray]:
    built = tvm.tirx.build(scheduled(name, rows, channels), tvm.target.Target(HOST.llvm))

    def run(x: np.ndarray) -> np.ndarray:
        y = tvm.runtime.tensor(np.zeros((rows, channels), np.float32))
        built["kernel"](tvm.runtime.tensor(x.reshape(rows, channels)), y)
        return y.numpy().reshape(x.shape)

    return run


def apply(name: str, x: np.ndarray, channels: int = CHANNELS) -> np.ndarray:
    """``name`` of any number of floats; the last block is filled up with zeros."""
    rows = 1024 if x.size > 1024 else 16
    padded = np.zeros(-(-x.size // (rows * channels)) * rows * channels, np.float32)
    padded[: x.size] = x
    run = compiled(name, rows, channels)
    return np.concatenate([run(block) for block in padded.reshape(-1, rows * channels)])[: x.size]


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance in units of the last place of the exact value; subnormal numbers have one unit."""
    unit = np.spacing(np.maximum(np.abs(exact), 2.0**-126).astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(found.astype(np.float64) - exact) / unit))


def phases() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    # Seven floats on each side of multiples of pi / 2 (where sin or cos is nearly 0) and of pi / 4 (where n changes).
    near = (np.arange(1, 83443 * 2) * (np.pi / 4)).astype(np.float32).view(np.int32)[:, None] + np.arange(-7, 8)
    exponents = random.integers(0, 0x7F800000, 1 << 19).astype(np.int32).view(np.float32)
    return {
        "uniform": random.uniform(-20, 20, 1 << 20).astype(np.float32),
        "within the bound": random.uniform(-REDUCTION_BOUND, REDUCTION_BOUND, 1 << 20).astype(np.float32),
        "near multiples of a quarter turn": near.astype(np.int32).view(np.float32).ravel(),
        "every exponent": exponents,
    }


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sine_and_cosine_are_within_two_units(name: str) -> None:
    """Breaks: a reduction loses digits, somewhere, or a polynomial has a wrong coefficient."""
    # Derived: reduced argument two roundings (1 ulp), polynomial and last fma 3/4, minimax 2**-27.7 below 0.1: under 2 ulp.
    for kind, x in phases().items():
        exact = FUNCTIONS[name][1](x.astype(np.float64))
        assert ulps(apply(name, x), exact) < 2, kind


def test_exponential_is_within_its_bound() -> None:
    """Breaks: exp is coarser than a C library's, or wrong where it overflows or is subnormal."""
    random = np.random.default_rng(0)
    # Derived: last addition 1/2, reduced argument and polynomial below 0.6 ulp of a value of at least 0.7: under 1.25 ulp.
    for low, high in ((-1, 1), (-87, 88.7), (-110, -86)):
        x = random.uniform(low, high, 1 << 19).astype(np.float32)
        assert ulps(apply("exp", x), np.exp(x.astype(np.float64))) < 1.25


@pytest.mark.parametrize("channels", [CHANNELS, 7], ids=["vectors", "elements"])
def test_special_values(channels: int) -> None:
    """Breaks: infinities and NaN give numbers, or exp ends at a wrong place."""
    special = np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 88.72284, 88.72285, 200, -103.9, -104, -200, 1e-40], np.float32
    )
    with np.errstate(all="ignore"):
        for name, (_, reference) in FUNCTIONS.items():
            expected = reference(special.astype(np.float64)).astype(np.float32)
            found = apply(name, special, channels)
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
            np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
            # 2 ulp of values up to 3.4e38, or of subnormals.
            np.testing.assert_allclose(found, expected, rtol=2.0**-22, atol=3e-45)
    assert np.signbit(apply("sin", special, channels)[1])


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_elements_do_not_depend_on_their_neighbours(name: str) -> None:
    """Breaks: an element's bits depend on the length of the vector, and so on the target."""
    x = np.random.default_rng(0).uniform(-100, 100, 4096).astype(np.float32)
    mixed = x.copy()
    mixed[::16] = 1e30
    kept = np.arange(x.size) % 16 != 0
    np.testing.assert_array_equal(apply(name, mixed)[kept], apply(name, x)[kept])
    np.testing.assert_array_equal(apply(name, mixed, 7), apply(name, mixed))


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "rpi4"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_call_of_the_c_library(name: str, target: str, tmp_path: object) -> None:
    """Breaks: one call per element, and results that depend on which C library the bundle is linked with."""
    chosen = get_target(target)
    built = tvm.tirx.build(scheduled(name, 16, CHANNELS, chosen), tvm.target.Target(chosen.llvm))
    built.write_to_file(str(tmp_path / "kernel.s"), "asm")
    text = (tmp_path / "kernel.s").read_text()
    for symbol in ("sinf", "cosf", "expf", "fmaf", "rint", "floor"):
        assert f"{symbol}\n" not in text and f"{symbol}@" not in text, symbol
