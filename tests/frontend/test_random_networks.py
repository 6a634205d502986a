"""Random foreign networks whose arithmetic is exact: what the front end makes of them gives equal results, bit for bit.

A run over many more: ``python -m pytest tests/frontend/test_random_networks.py`` with another ``FIRST``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.standard_operators import standard_opset
from bnn_deploy.onnx_files.writing import finish
from bnn_deploy.passes.onnx.canonicalise import canonicalise
from bnn_deploy.passes.onnx.import_report import ImportOptions
from tests.frontend.random_networks import RandomNetwork, random_network

FIRST = 0
NETWORKS = 240
# Zeros at thresholds stay 0, and layers with weights of 0 stay real-valued: what the file says.
# Of one output, as the compiler wants them; 39 and 1098 have a threshold for each row of a matrix.
COMPILED = (4, 10, 24, 25, 30, 39, 1098)
EXACT = ImportOptions(sign_zero="0", zero_weights="float")


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs by name, as written: an optimiser's own rewrites must not stand between graph and comparison."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def check(network: RandomNetwork, seed: int) -> int:
    """How many layers were found to be binary, after all else has been asserted."""
    before = network.model.SerializeToString(deterministic=True)
    model, report = canonicalise(network.model, EXACT)
    assert network.model.SerializeToString(deterministic=True) == before, (
        f"network {seed}: the file's model was changed"
    )
    finish(model, {}, standard_opset(model))
    onnx.checker.check_model(model, full_check=True)
    expected, found = run(network.model, network.x), run(model, network.x)
    assert list(found) == list(expected), f"network {seed}: outputs are called otherwise"
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=f"network {seed}, output {name}")
    # A node that writes a layer anew may have its name, slash and operator.
    binary = {layer.name.split("/")[0] for layer in report.layers if layer.binary}
    missed = network.binary_layers - binary
    reasons = [(layer.name, layer.reasons) for layer in report.layers if layer.name in missed]
    assert not missed, f"network {seed}: {missed} must be found to be binary; said: {reasons}"
    return sum(layer.binary for layer in report.layers)


@pytest.mark.parametrize("first", range(FIRST, FIRST + NETWORKS, 40))
def test_a_canonical_model_equals_the_file(first: int) -> None:
    """Breaks if a rule changes what a network computes, loses an output's name, or does not see that a layer is binary."""
    layers = sum(check(random_network(seed), seed) for seed in range(first, first + 40))
    assert layers >= 20, "the networks hold too few binary layers to test anything"


def test_zero_weights_are_always_said() -> None:
    """Breaks if weights that are exactly 0 become -1 or stay real-valued without the user's choice."""
    networks = [random_network(seed) for seed in range(400, 700)]
    with_zeros = [network for network in networks if network.zero_weights]
    assert len(with_zeros) >= 5
    for network in with_zeros:
        with pytest.raises(ModelFileError, match="exact zeros"):
            canonicalise(network.model, ImportOptions(sign_zero="0"))


@pytest.mark.parametrize("seed", COMPILED)
def test_a_compiled_model_equals_the_file(seed: int, tmp_path: Path) -> None:
    """Breaks if what comes out of the compiler is not, bit for bit, what the file says."""
    network = random_network(seed, plain=True)
    assert network.binary_layers
    onnx.save(network.model, str(tmp_path / "x.onnx"))
    bundle = compile_model(tmp_path / "x.onnx", "host", tmp_path / "b", batch=2, options=EXACT)
    (expected,) = run(network.model, network.x).values()
    np.testing.assert_array_equal(bnn_deploy.load(bundle.path)(network.x), expected)
