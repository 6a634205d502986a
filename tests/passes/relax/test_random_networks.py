"""Every Relax pass keeps the function of random networks of binary and float layers, exactly."""

from __future__ import annotations

import numpy as np
import tvm
from hypothesis import HealthCheck, given, settings

from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from tests.passes.evaluate import evaluate
from tests.passes.networks import operators
from tests.passes.random_networks import networks

PASSES = (drop_identity, fold_threshold, fold_affine, to_channels_last, pack)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_passes_in_order_keep_the_function(case: tuple[tvm.IRModule, np.ndarray]) -> None:
    """Breaks: some combination of layers, channel counts and data movement is compiled to another network."""
    module, x = case
    expected = evaluate(module, x)
    for transform in PASSES:
        module = transform(module)
        np.testing.assert_array_equal(evaluate(module, x), expected, err_msg=f"after {transform.__name__}")
    layers = {"bnn.conv2d", "bnn.tap_scaled_conv2d", "bnn.linear"}
    assert not layers & set(operators(module)), "a binary layer still reads floats"
