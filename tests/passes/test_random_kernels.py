"""All passes together on random networks, executed: the kernels and the plan compute what the network means."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, assume, given, settings

from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.name_layers import name_layers
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.registry import get_target, missing_cpu_flags
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_plan
from tests.passes.networks import operators
from tests.passes.random_networks import networks

TARGETS = [get_target(name) for name in ("x86-64-v3", "x86-64-v4", "x86-64-v4-vpopcntdq", "arm64")]
RUNNABLE = [target for target in TARGETS if not missing_cpu_flags(target)]


# The examples are always the same ones: float32 holds all their sums exactly, which is likely but not certain for others.
@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=networks(deepest=3))
def test_compiled_random_networks(target: Target, case: tuple[tvm.IRModule, np.ndarray]) -> None:
    """Breaks: two passes that are right on their own do not fit each other, or a kernel is wrong on an odd shape."""
    module, x = case
    assume("bnn.conv2d" in operators(module) or "bnn.tap_scaled_conv2d" in operators(module))
    expected = evaluate(module, x)
    for transform in (name_layers, drop_identity, fold_threshold, fold_affine, to_channels_last, pack):
        module = transform(module)
    lowered = lower_packed(module, target)
    with tempfile.TemporaryDirectory() as folder:
        found = run_plan(lowered, target, x.astype("float32"), Path(folder))
    np.testing.assert_array_equal(found, expected)
