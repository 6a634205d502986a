"""A fully connected network as QONNX's public zoo has them (TFC_1W1A): old operators, undeclared domain, dynamic head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx

WIDTHS = (64, 48, 40, 10)
EPSILON = 1e-5


@dataclass(frozen=True)
class Network:
    """Real weights (outputs, inputs) of each layer, and scale, bias, mean, variance of the normalisation between."""

    weights: list[np.ndarray]
    normalisations: list[np.ndarray]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """In float64; no value is so near a threshold that float32 could differ."""
        value = 2 * images.reshape(len(images), -1).astype(np.float64) - 1
        for index, weight in enumerate(self.weights):
            value = np.where(value >= 0, 1, -1) @ np.where(weight >= 0, 1, -1).T
            if index < len(self.normalisations):
                scale, bias, mean, variance = self.normalisations[index].astype(np.float64)
                value = (value - mean) / np.sqrt(variance + EPSILON) * scale + bias
                # Values are below 100 and float32 rounds four times: 4 · 2^-24 · 100 = 2.4e-5.
                assert np.abs(value).min() > 1e-4, "choose other parameters: a value falls on either side of 0"
        return value * 0.25 + 0.5


@pytest.fixture(scope="module")
def network() -> Network:
    random = np.random.default_rng(0)
    shapes = list(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
    weights = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    # Zeros count as +1, of whichever sign.
    weights[0][0, :2] = [0.0, -0.0]
    normalisations = [
        np.stack([*random.standard_normal((3, width)), random.uniform(5, 60, width)]).astype(np.float32)
        for width in WIDTHS[1:-1]
    ]
    return Network(weights, normalisations)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Multiples of 1/16, so that 2x - 1 is exact and often exactly 0."""
    return (np.random.default_rng(1).integers(0, 17, (16, 1, 8, 8)) / 16).astype(np.float32)


def write(network: Network, path: Path, batch: int | str, domain: str) -> Path:
    """The file, of operator set 9 and IR version 3: initializers are inputs too, and ``domain`` is not declared."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {
        "zero": np.array(0),
        "minus_one": np.array([-1]),
        "two": np.float32(2),
        "one": np.float32(1),
        "quarter": np.float32(0.25),
        "half": np.float32(0.5),
    }

    def add(op_type: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        output = f"value_{len(nodes)}"
        nodes.append(
            helper.make_node(op_type, inputs, [output], f"{op_type}_{len(nodes)}", domain=domain, **attributes)
        )
        return output

    images = add("Gather", add("Shape", "input"), "zero", axis=0)
    value = add("Reshape", "input", add("Concat", add("Unsqueeze", images, axes=[0]), "minus_one", axis=0))
    value = add("Sub", add("Mul", value, "two"), "one")
    for index, weight in enumerate(network.weights):
        constants[f"weight_{index}"] = weight
        signs = add("BipolarQuant", value, "one", domain=domain)
        matrix = add("BipolarQuant", f"weight_{index}", "one", domain=domain)
        value = add("MatMul", signs, add("Transpose", matrix, perm=[1, 0]))
        if index < len(network.normalisations):
            names = [f"{part}_{index}" for part in ("scale", "bias", "mean", "variance")]
            constants |= dict(zip(names, network.normalisations[index], strict=True))
            value = add("BatchNormalization", value, *names, epsilon=EPSILON)
    value = add("Add", add("Mul", value, "quarter"), "half")
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 1, 8, 8]),
        *(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in tensors),
    ]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, [batch, WIDTHS[-1]])]
    graph = helper.make_graph(nodes, "tfc", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(params=["finn.custom_op.general", "onnx.brevitas"])
def domain(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[1, "batch"])
def path(request: pytest.FixtureRequest, network: Network, domain: str, tmp_path: Path) -> Path:
    return write(network, tmp_path / "tfc.onnx", request.param, domain)


def test_expanded_file(path: Path, network: Network, images: np.ndarray) -> None:
    """Breaks when such a file is refused, or its expansion is another network."""
    session = onnxruntime.InferenceSession(expand_qonnx(load_onnx(path)).SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["input"]
    # Integers times 1/4 plus 1/2: exact.
    for image, logits in zip(images, network.logits(images), strict=True):
        np.testing.assert_array_equal(session.run(None, {"input": image[None]})[0][0], logits)


def test_all_layers_are_binary(path: Path) -> None:
    """Breaks when a transposed matrix, a dynamic reshape or the head hides a binary layer."""
    report = open_model(path).report
    assert [layer.op for layer in report.binary_layers] == ["MatMul"] * 3
    assert len(report.layers) == 3 and len(report.activations) == 3


@pytest.mark.parametrize("batch", [1, "batch"])
def test_compiled(batch: int | str, network: Network, images: np.ndarray, tmp_path: Path) -> None:
    """Breaks when the compiled network differs in one bit."""
    path = write(network, tmp_path / "tfc.onnx", batch, "finn.custom_op.general")
    bundle = compile_model(path, "host", tmp_path / "bundle")
    np.testing.assert_array_equal(bnn_deploy.load(bundle.path)(images), network.logits(images))
