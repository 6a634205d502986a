"""Binary networks built, trained and exported with Brevitas: read, run on bits, and compared with Brevitas itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

# No importorskip: where they can be installed they must be, or nothing here would be checked.
if sys.version_info < (3, 11):
    pytest.skip("QONNX wants an older onnx than bnn-deploy on Python 3.10", allow_module_level=True)

import brevitas.nn as qnn
import torch
from brevitas.export import export_qonnx
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from torch import nn

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx

SAMPLES = 32


class EighthWeight(SignedBinaryWeightPerTensorConst):
    """Weights of ±1/8: every sum of products is exact, in whatever order."""

    scaling_init = 0.125


def activation() -> nn.Module:
    return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)


def mlp() -> nn.Sequential:
    """Brevitas's own weight scale, 0.1."""
    return nn.Sequential(
        nn.Flatten(),
        activation(),
        qnn.QuantLinear(64, 96, bias=False, weight_quant=SignedBinaryWeightPerTensorConst),
        nn.BatchNorm1d(96),
        activation(),
        qnn.QuantLinear(96, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst),
    )


def cnn() -> nn.Sequential:
    """A real first convolution, padding by zeros, pooling, channels that fill words and ones that do not."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        activation(),
        qnn.QuantConv2d(24, 32, 3, padding=1, bias=False, weight_quant=EighthWeight),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),
        activation(),
        qnn.QuantConv2d(32, 48, 3, bias=False, weight_quant=EighthWeight),
        nn.BatchNorm2d(48),
        activation(),
        nn.Flatten(),
        qnn.QuantLinear(192, 10, bias=False, weight_quant=EighthWeight),
    )


@dataclass(frozen=True)
class Case:
    """A network, how much real numbers may differ in it, and its layers.

    Attributes:
        build: makes the untrained network.
        epochs: of training.
        margin: a value before a sign that is nearer to 0 may fall on either side, by the order of additions.
        step: what all logits are multiples of, but for rounding.
        binary_layers: names of the quantised layers.
        binary_activations: names of the activations.
    """

    build: Callable[[], nn.Sequential]
    epochs: int
    margin: float
    step: float
    binary_layers: list[str]
    binary_activations: list[str]


CASES = {
    # 64 products of 0.1 add up to 6.4 at most; 63 roundings of 2^-24 · 6.4 each are 2.4e-5, and batch normalisation divides
    # by a deviation of about 0.1 · sqrt(64) = 0.8 or more and multiplies by about 1: 1e-4 with a factor 3 to spare.
    "mlp": Case(mlp, 12, 1e-4, 0.2, ["2", "5"], ["1", "4"]),
    # The binary layers are exact. Nine products of the first convolution add up to 9 at most: 9 · 2^-24 · 9 = 5e-6; batch
    # normalisation of values up to 20 rounds four times by 2^-24 · 20: together below 3e-5.
    "cnn": Case(cnn, 4, 3e-5, 0.25, ["3", "7", "11"], ["2", "6", "9"]),
}


@dataclass(frozen=True)
class Trained:
    """A trained network and its exports.

    Attributes:
        case: what it is.
        files: path of the export by exporter.
        images: (SAMPLES, 1, 8, 8), those without a value near a threshold.
        logits: Brevitas's own for them.
        signs: what Brevitas's activations give for them, by module name.
    """

    case: Case
    files: dict[str, Path]
    images: np.ndarray
    logits: np.ndarray
    signs: dict[str, np.ndarray]


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32)
    return images, torch.tensor(data.target)


def train(network: nn.Sequential, epochs: int) -> None:
    images, labels = digits()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(epochs):
        for start in range(0, 1500, 100):
            optimiser.zero_grad()
            logits = network(images[start : start + 100])
            nn.functional.cross_entropy(logits, labels[start : start + 100]).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    assert accuracy > 0.5, "an untrained network's logits and thresholds prove little"


def observe(network: nn.Sequential, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Logits, the least distance of a computed value from its threshold in each image, and all signs."""
    margins, signs = torch.full((len(images),), torch.inf), {}
    value = images
    with torch.no_grad():
        for name, module in network.named_children():
            result = module(value)
            if isinstance(module, qnn.QuantIdentity):
                result = result.value if hasattr(result, "value") else result
                signs[name] = result.numpy()
                # Images are exact, whatever their distance from 0.
                if int(name) > 1:
                    margins = torch.minimum(margins, value.abs().flatten(1).amin(1))
            value = result
    return value.numpy(), margins.numpy(), signs


@pytest.fixture(scope="module", params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    case = CASES[request.param]
    torch.manual_seed(0)
    network = case.build()
    train(network, case.epochs)
    images = digits()[0][1500 : 1500 + 2 * SAMPLES]
    logits, margins, signs = observe(network, images)
    clear = np.flatnonzero(margins > case.margin)[:SAMPLES]
    assert len(clear) == SAMPLES, "more than half of the images have a value that may fall on either side"

    folder = tmp_path_factory.mktemp(request.param)
    files = {name: folder / f"{name}.onnx" for name in ("dynamo", "torchscript")}
    for name, path in files.items():
        export_qonnx(network, images[:1], export_path=str(path), dynamo=name == "dynamo")
    taken = {name: values[clear] for name, values in signs.items()}
    return Trained(case, files, images[clear].numpy(), logits[clear], taken)


@pytest.fixture(params=["dynamo", "torchscript"])
def exported(request: pytest.FixtureRequest, trained: Trained) -> Path:
    return trained.files[request.param]


def run(model: onnx.ModelProto, images: np.ndarray, outputs: list[str] | None = None) -> list[np.ndarray]:
    """The outputs for all images, one at a time, without optimisations across nodes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    results = [session.run(outputs, {name: image[None]}) for image in images]
    return [np.concatenate(values) for values in zip(*results, strict=True)]


def check_logits(trained: Trained, logits: np.ndarray) -> None:
    """They are the integers that Brevitas's are, times the step, but for rounding of at most an eighth of a step.

    K products of the scale add up to 0.1 · 96 at most (mlp); 95 roundings of 2^-24 · 9.6 are 6e-5, far below 0.2 / 8.
    """
    for found in (logits, trained.logits):
        # The parity of a sum of ±1 is that of their number, which is even here.
        np.testing.assert_allclose(found / trained.case.step, np.rint(found / trained.case.step), rtol=0, atol=1 / 8)
    np.testing.assert_array_equal(np.rint(logits / trained.case.step), np.rint(trained.logits / trained.case.step))


def test_expanded_file_computes_what_brevitas_computes(trained: Trained, exported: Path) -> None:
    """Breaks when a Brevitas file is misread: wrong signs, scales, weights, or inputs that are weights."""
    expanded = expand_qonnx(load_onnx(exported))
    assert len(expanded.graph.input) == 1
    check_logits(trained, run(expanded, trained.images)[0])


def test_qonnx_executes_the_file_to_the_same_bits(
    trained: Trained, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the expansion differs from QONNX's own execution of the file, which also goes node by node."""
    from qonnx.core import onnx_exec
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    # It makes a model of every node, of the newest IR version that onnx knows, which may be too new for onnxruntime.
    make_model = onnx_exec.qonnx_make_model
    monkeypatch.setattr(onnx_exec, "qonnx_make_model", lambda graph: make_model(graph, ir_version=10))
    model = ModelWrapper(str(exported)).transform(InferShapes())
    (name,) = [value.name for value in load_onnx(exported).graph.input]
    images = trained.images[:4]
    found = [onnx_exec.execute_onnx(model, {name: image[None]})[model.graph.output[0].name] for image in images]
    expanded = expand_qonnx(load_onnx(exported))
    np.testing.assert_array_equal(np.concatenate(found), run(expanded, images)[0])


def test_every_quantised_layer_is_binary_and_its_signs_are_brevitas_own(trained: Trained, exported: Path) -> None:
    """Breaks when a Brevitas layer or activation is not recognised, or is but gives one other bit."""
    opened = open_model(exported)
    model = opened.model
    assert len(opened.report.binary_layers) == len(trained.case.binary_layers)
    signs = [node for node in model.graph.node if node.op_type in ("Sign", "Ternary")]
    assert len(signs) == len(trained.case.binary_activations)
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in signs)
    found = run(model, trained.images, [node.output[0] for node in signs])
    for name, values in zip(trained.case.binary_activations, found, strict=True):
        np.testing.assert_array_equal(values.ravel(), trained.signs[name].ravel())
    check_logits(trained, run(model, trained.images)[0])


def test_the_compiled_network_computes_what_brevitas_computes(trained: Trained, tmp_path: Path) -> None:
    """Breaks when a network from Brevitas compiles to something else, on this machine."""
    bundle = compile_model(trained.files["dynamo"], "host", tmp_path / "bundle")
    logits = bnn_deploy.load(bundle.path)(trained.images)
    check_logits(trained, logits)
    if trained.case is CASES["cnn"]:
        # Integers times 1/8 are exact everywhere.
        np.testing.assert_array_equal(logits, trained.logits)
