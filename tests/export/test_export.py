"""PyTorch -> ONNX on a small network: same results three ways, names, contents and failures."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.export.export_model import export_model
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation
from bnn_deploy.models.precision import Precision, set_precision
from bnn_deploy.onnx_files.binary_layers import require_binary
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.ops.registry import DOMAIN, STANDARD_OPSET
from tests.export.references import run_numpy, run_onnxruntime
from tests.export.small_network import INPUT_SHAPE, SmallNetwork, small_network, smallest_margin

METADATA = {"bnn_deploy.model": "small", "bnn_deploy.weights": "random"}


@pytest.fixture(scope="module")
def network() -> SmallNetwork:
    return small_network()


@pytest.fixture(scope="module")
def path(network: SmallNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with a dynamic batch."""
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    export_model(network, path, input_shape=INPUT_SHAPE, metadata=METADATA)
    return path


@pytest.fixture(scope="module")
def model(path: Path) -> onnx.ModelProto:
    return load_onnx(path)


@pytest.mark.parametrize("batch", [1, 3])
def test_three_runtimes_agree(network: SmallNetwork, model: onnx.ModelProto, batch: int) -> None:
    """Breaks when PyTorch, the function bodies under onnxruntime and the numpy references compute different models."""
    x = np.random.default_rng(batch).normal(size=(batch, *INPUT_SHAPE)).astype(np.float32)
    expected, margin = smallest_margin(network, torch.from_numpy(x))
    # Two orders of magnitude above what rounding can move a value here (see below), so every sign is the same ...
    assert margin > 1e-4
    # ... and what remains are a few dozen float32 roundings (2**-24 each) of values below 20: 30 * 20 * 6e-8 = 4e-5.
    tolerance = 4e-5
    assert np.abs(run_onnxruntime(model, x) - expected.numpy()).max() < tolerance
    assert np.abs(run_numpy(model, x) - expected.numpy()).max() < tolerance


def test_nodes_carry_module_paths(network: SmallNetwork, model: onnx.ModelProto) -> None:
    """Breaks when a layer's name in reports is no longer the path of its PyTorch module."""
    by_name = {node.name: node for node in model.graph.node}
    assert len(by_name) == len(model.graph.node)
    operators = {
        BinaryActivation: "Sign",
        TernaryActivation: "Ternary",
        BinaryConv2d: "BinaryConv",
        BinaryLinear: "BinaryLinear",
        nn.Conv2d: "Conv",
        nn.BatchNorm2d: "BatchNormalization",
        nn.GroupNorm: "GroupNormalization",
        nn.Linear: "Gemm",
    }
    found = 0
    for path, module in network.named_modules():
        for kind, operator in operators.items():
            if isinstance(module, kind):
                tap_scaled = getattr(module, "scaling", "") == "tap"
                assert by_name[path].op_type == ("TapScaledBinaryConv" if tap_scaled else operator), path
                found += 1
    assert found == 12
    binary = {node.name for node in model.graph.node if node.domain == DOMAIN}
    assert binary <= {path for path, _ in network.named_modules()}
    assert by_name["body.0.act.act"].op_type == "PRelu" and by_name["body.0.move"].op_type == "Add"
    # The second call of one module, and operations that no leaf module owns.
    assert by_name["body.0.norm/BatchNormalization"].op_type == "BatchNormalization"
    assert by_name["body.0/Add"].op_type == "Add"


def test_packed_weights_are_the_signs(network: SmallNetwork, model: onnx.ModelProto) -> None:
    """Breaks when exported bits are not the signs of the weights in (row, column, channel) order."""
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("body.0.flat", "body.0.v0", "body.0.taps"):
        layer = network.get_submodule(name)
        signs = layer.binary_weight().detach().numpy().transpose(0, 2, 3, 1)
        for row, weights in zip(tensors[f"{name}.packed"], signs.reshape(len(signs), -1), strict=True):
            assert [(row[k // 8] >> (k % 8)) & 1 for k in range(len(weights))] == (weights > 0).tolist()


def test_batch_norms_stay_and_shrink(network: SmallNetwork, model: onnx.ModelProto) -> None:
    """Breaks when a BatchNormalization is folded away, or one that is used twice loses its statistics."""
    norms = {node.name: node for node in model.graph.node if node.op_type == "BatchNormalization"}
    assert norms.keys() == {"bn", "body.0.norm", "body.0.norm/BatchNormalization"}
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    fills = {}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            fill = onnx.numpy_helper.to_array(node.attribute[0].t)
            fills[node.output[0]] = (tensors[node.input[0]].tolist(), fill.tolist(), fill.dtype)
    assert [fills[name] for name in norms["bn"].input[3:]] == [([10], [0], np.float32), ([10], [1], np.float32)]
    assert [(item.name, item.f) for item in norms["bn"].attribute] == [("epsilon", 0.0)]
    gamma, beta = (tensors[name] for name in norms["bn"].input[1:3])
    layer = network.bn
    expected = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
    assert np.array_equal(gamma, expected.float().detach().numpy())
    shift = layer.bias.double() - layer.running_mean.double() * expected
    assert np.array_equal(beta, shift.float().detach().numpy())
    twice = tensors[norms["body.0.norm"].input[3]]
    assert np.array_equal(twice, network.body[0].norm.running_mean.numpy())


def test_the_file_says_nothing_about_this_machine(path: Path, model: onnx.ModelProto) -> None:
    """Breaks when stack traces, source paths, doc strings or the exporter's notes end up in a file that users share."""
    content = path.read_bytes()
    assert not re.search(rb"\.py\b|site-packages|Traceback|torch|/home|/root|/tmp|/work|pkg\.", content)
    assert str(path.parent).encode() not in content
    graph = model.graph
    items = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    assert not any(item.doc_string for item in items)
    assert not any(item.metadata_props for item in items[1:])
    assert {item.key: item.value for item in model.metadata_props} == METADATA
    assert not any(tensor.external_data for tensor in graph.initializer)
    versions = {opset.domain: opset.version for opset in model.opset_import}
    assert versions == {"": STANDARD_OPSET, DOMAIN: 1}
    assert {function.name for function in model.functions} == {n.op_type for n in graph.node if n.domain == DOMAIN}


def test_same_module_same_bytes(network: SmallNetwork, path: Path, tmp_path: Path) -> None:
    """Breaks when a file depends on anything but the module: hashes in manifests and caches would change for nothing."""
    export_model(network, tmp_path / "again.onnx", input_shape=INPUT_SHAPE, metadata=dict(reversed(METADATA.items())))
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_fixed_batch(network: SmallNetwork, model: onnx.ModelProto, tmp_path: Path) -> None:
    """Breaks when a fixed batch size is not written, or changes the results."""
    export_model(network, tmp_path / "fixed.onnx", input_shape=INPUT_SHAPE, batch=2)
    fixed = load_onnx(tmp_path / "fixed.onnx")
    shapes = [
        [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (fixed.graph.input[0], fixed.graph.output[0], model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [[2, *INPUT_SHAPE], [2, 7], ["batch", *INPUT_SHAPE], ["batch", 7]]
    assert [value.name for value in (*fixed.graph.input, *fixed.graph.output)] == ["input", "logits"]
    x = np.random.default_rng(5).normal(size=(2, *INPUT_SHAPE)).astype(np.float32)
    # The same graph on the same machine: nothing but the batch differs.
    assert np.array_equal(run_onnxruntime(fixed, x), run_onnxruntime(model, x))


@pytest.mark.parametrize("activation", [BinaryActivation(), TernaryActivation()])
def test_activations_at_their_thresholds(activation: nn.Module, tmp_path: Path) -> None:
    """Breaks when the file decides otherwise than PyTorch at 0, -0.0, +-0.5, NaN or an infinity."""
    export_model(activation, tmp_path / "m.onnx", input_shape=(7,), batch=1)
    x = np.array([[0.0, -0.0, 0.5, -0.5, np.nan, np.inf, -np.inf]], np.float32)
    expected = activation(torch.from_numpy(x)).numpy()
    model = load_onnx(tmp_path / "m.onnx")
    assert np.array_equal(run_onnxruntime(model, x), expected)
    assert np.array_equal(run_numpy(model, x), expected)


def test_the_module_is_left_alone(tmp_path: Path) -> None:
    """Breaks when exporting during training swaps layers, changes weights or leaves the module in evaluation mode."""
    module = nn.Sequential(BinaryActivation(), BinaryConv2d(3, 4, 3)).train()
    before = copy.deepcopy(module.state_dict())
    export_model(module, tmp_path / "m.onnx", input_shape=(3, 4, 4))
    assert module.training and isinstance(module[1], BinaryConv2d)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    require_binary(load_onnx(tmp_path / "m.onnx"))


@pytest.mark.parametrize("precision", [("real", "binary"), ("binary", "real")])
def test_real_valued_layers_are_refused(precision: tuple[Precision, Precision], tmp_path: Path) -> None:
    """Breaks when a network of an early step of training is deployed as if it were binary, which it was not trained to be."""
    activations, weights = precision
    for layer in (BinaryActivation(), TernaryActivation(), BinaryConv2d(3, 4), BinaryLinear(3, 4)):
        module = nn.Sequential(nn.Identity(), layer)
        set_precision(module, activations=activations, weights=weights)
        if layer.binary:
            continue
        with pytest.raises(InputError, match=r"^The layer 1 is set to real values.* binary layer is expected; train"):
            export_model(module, tmp_path / "m.onnx", input_shape=(3, 4, 4))
    assert not list(tmp_path.iterdir())


class Branching(nn.Module):
    """Cannot be exported: its control flow depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    """Breaks when a failure destroys the previous file, leaves a temporary one, or shows a traceback instead of a sentence."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ModelFileError, match="could not export Branching for inputs of shape \\(2, 3\\)"):
        export_model(Branching(), path, input_shape=(3,))
    assert path.read_bytes() == b"old"
    with pytest.raises(InputError, match=r"m\.onnx: cannot be written \(No such file or directory\)"):
        export_model(BinaryActivation(), tmp_path / "missing" / "m.onnx", input_shape=(3,))
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"m\.onnx: cannot be written \(Is a directory\)"):
        export_model(BinaryActivation(), path, input_shape=(3,))
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(("batch", "shape"), [(0, (3,)), (-1, (3,)), (1, ()), (1, (3, 0))])
def test_sizes_must_be_positive(batch: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Breaks when an impossible size reaches PyTorch's exporter."""
    with pytest.raises(InputError, match="positive sizes"):
        export_model(BinaryActivation(), tmp_path / "m.onnx", input_shape=shape, batch=batch)
