"""Signs that are 0 at their threshold, all the way: an ONNX file, a bundle, and the same numbers as onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import ToolError
from tests.passes.onnx_models import model, node, packed, run

SHAPE = (2, 40, 4, 8)  # means over 32 pixels are exact
TINY = np.float32(1e-45)  # the smallest denormal
THRESHOLDS = np.resize(np.array([0.0, -0.0, 0.5, TINY, -1.25, 1e-38], np.float32), (1, 40, 1, 1))


def network() -> onnx.ModelProto:
    """Both kinds of signs of one tensor, thresholds per channel and none, rolled words, groups, scales per tap, a linear layer."""
    square = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "in_channels": 40}
    constants = {
        "t": THRESHOLDS,
        "zero": np.zeros((), np.float32),
        "w0": packed(40, 9 * 40),
        "w1": packed(40, 9, seed=1),
        "w2": packed(64, 9 * 40, seed=2),
        "w3": packed(7, 64, seed=3),
        "taps": (np.random.default_rng(0).integers(-4, 5, (64, 9)) / 4).astype(np.float32),
        "scale": (np.random.default_rng(1).integers(-4, 5, (1, 40, 1, 1)) / 4).astype(np.float32),
        **{name: np.array([value], np.int64) for name, value in {"b0": 3, "e0": 2**63 - 1, "b1": 0, "a": 2}.items()},
    }
    nodes = [
        node("Sign", "x t", "s0", "first.sign", zero=0),
        node("Slice", "s0 b0 e0 a", "bottom"),
        node("Slice", "s0 b1 b0 a", "top"),
        node("Concat", "bottom top", "rolled", axis=2),
        node("BinaryConv", "rolled w0", "c0", "first.conv", group=1, **square),
        node("Sign", "x t", "s1", "second.sign", zero=-1),
        node("BinaryConv", "s1 w1", "c1", "second.conv", group=40, **square),
        node("Mul", "c0 scale", "m0"),
        node("Add", "m0 c1", "sum"),
        node("Sign", "sum zero", "s2", "third.sign", zero=0),
        node("TapScaledBinaryConv", "s2 w2 taps", "c2", "third.conv", group=1, **square),
        node("GlobalAveragePool", "c2", "pooled"),
        node("Flatten", "pooled", "flat", axis=1),
        node("Sign", "flat zero", "s3", "last.sign", zero=0),
        node("BinaryLinear", "s3 w3", "y", "last", in_features=64),
    ]
    return model(nodes, SHAPE, constants, rank=2)


def inputs() -> np.ndarray:
    """Half of the values at a threshold, or on the floats beside it; the rest zeros of both signs, denormals and others."""
    random = np.random.default_rng(2)
    thresholds = np.broadcast_to(THRESHOLDS, SHAPE)
    beside = np.nextafter(thresholds, random.choice(np.array([-np.inf, np.inf], np.float32), SHAPE))
    others = random.choice(np.array([0.0, -0.0, TINY, -TINY, 1.0, -1.0, np.inf, -np.inf], np.float32), SHAPE)
    return np.choose(random.integers(0, 4, SHAPE), [thresholds, beside, others, others]).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a file."""
    file = tmp_path_factory.mktemp("signs") / "network.onnx"
    onnx.save(network(), file)
    return file


def values(name: str) -> np.ndarray:
    """A value inside the network, as onnxruntime computes it."""
    inner = network()
    inner.graph.output[0].CopyFrom(onnx.helper.make_empty_tensor_value_info(name))
    return run(inner, inputs())


def test_the_network_meets_zeros() -> None:
    """Breaks: the inputs never reach a threshold, and the tests below say nothing about it."""
    zeros = {name: float((values(name) == 0).mean()) for name in ("s0", "s2", "s3")}
    assert all(0 < part < 0.9 for part in zeros.values()), zeros
    signs = (values("s0") != np.where(inputs() > THRESHOLDS, 1, -1)).mean()
    assert signs == zeros["s0"]


def test_bundle_computes_what_onnxruntime_computes(path: Path, tmp_path: Path) -> None:
    """Breaks: sign(0) = 0 is lost somewhere between the file and the kernels. Sums are of few quarters: exact in any order."""
    bundle = compile_model(path, "host", tmp_path / "bundle", batch=SHAPE[0])
    assert [step.kernel for step in bundle.steps if "ternary_sign_pack" in step.kernel]
    np.testing.assert_array_equal(bnn_deploy.load(bundle.path)(inputs()), run(network(), inputs()))


@pytest.mark.qemu
def test_arm64_bundle_computes_what_onnxruntime_computes(path: Path, tmp_path: Path) -> None:
    """Breaks: the same for NEON, or the processor is set to flush denormals."""
    try:
        find_qemu()
    except ToolError as error:
        pytest.skip(str(error))
    bundle = compile_model(path, "arm64", tmp_path / "bundle", batch=SHAPE[0])
    np.testing.assert_array_equal(get_device("qemu").run(bundle, inputs()), run(network(), inputs()))
