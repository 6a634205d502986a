"""exponential_functions: sigmoid and tanh of exponentials are those functions, on both sides of zero."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.exponential_functions import exponential_functions
from bnn_deploy.targets.registry import host_target
from tests.passes.execute import run_function
from tests.passes.networks import build

FUNCTIONS = {
    "tanh": (relax.op.tanh, np.tanh),
    "sigmoid": (relax.op.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_is_the_same(name: str) -> None:
    """Breaks: a gate of a network has the wrong sign, or the wrong size, for some inputs."""
    operator, expected = FUNCTIONS[name]
    x = np.concatenate([np.linspace(-4, 4, 161), [-100, -1e-3, -0.0, 0.0, 1e-3, 100]]).astype(np.float32)
    module = fuse_float(build([x.shape], lambda emit, value: operator(value)))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    written = exponential_functions(function)
    assert f"T.{name}" in function.script() and f"T.{name}" not in written.script()
    found = run_function(written, host_target(), x, np.full_like(x, np.nan))[-1]
    np.testing.assert_allclose(found, expected(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
