"""decompose_group_norm: means axis by axis, and float32's accuracy on images where one long sum loses it."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.decompose_group_norm import decompose_group_norm
from bnn_deploy.targets.registry import host_target
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_module
from tests.passes.networks import build, constant, operators

EPSILON = 1e-5


def group_norm(shape: tuple[int, ...], groups: int, channel_axis: int = 3) -> tvm.IRModule:
    """One group norm with gamma and beta that differ from channel to channel."""
    channels = shape[channel_axis]
    gamma, beta = constant(np.linspace(-1, 2, channels)), constant(np.linspace(3, -3, channels))
    axes = [axis for axis in (1, 2, 3) if axis != channel_axis]
    return build([shape], lambda emit, x: relax.op.nn.group_norm(x, gamma, beta, groups, channel_axis, axes, EPSILON))


@pytest.mark.parametrize("shape, groups", [((2, 3, 5, 8), 1), ((1, 4, 4, 6), 3), ((1, 2, 2, 4), 4), ((1, 1, 1, 5), 1)])
def test_function_is_kept(shape: tuple[int, ...], groups: int) -> None:
    """Breaks: groups, gamma and beta, or epsilon end up on the wrong channels."""
    before = group_norm(shape, groups)
    after = decompose_group_norm(before)
    assert "relax.nn.group_norm" not in operators(after)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    # Both evaluated in float64; only the constant epsilon is rounded to float32 (2^-24 of 1e-5, far below the bound).
    np.testing.assert_allclose(evaluate(after, x), evaluate(before, x), rtol=0, atol=1e-9)


def test_channels_first_stays() -> None:
    """Breaks: a group norm that the layout pass left alone is normalised over the wrong axes."""
    before = group_norm((1, 6, 4, 4), 2, channel_axis=1)
    tvm.ir.assert_structural_equal(decompose_group_norm(before), before)


def test_accuracy_with_a_large_mean() -> None:
    """Breaks: BiMLP-M's released variant flips bits, as it did with TVM's own kernel (E[x^2] - E[x]^2 in one long sum)."""
    shape = (1, 56, 56, 64)
    x = (np.random.default_rng(0).standard_normal(shape) + 30).astype(np.float32)
    before = group_norm(shape, 1)
    exact = evaluate(before, x)
    # The mean's error is at most 3 roundings of 30 plus what rows of 56 to 64 terms add, (64 + 64 + 64) * 2^-24 * 30 at worst;
    # gamma is at most 2, the deviation is 1. The variance's relative error is smaller and multiplies values of at most 6 * 2.
    bound = 2 * 200 * 2.0**-24 * 30 + 12 * 200 * 2.0**-24
    assert np.abs(run_module(decompose_group_norm(before), host_target(), x) - exact).max() < bound
    # TVM's own kernel is far outside of it, or this test would prove nothing.
    assert np.abs(run_module(before, host_target(), x) - exact).max() > bound
