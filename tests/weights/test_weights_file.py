"""Files of weights: the same bytes each time, what `export` must know, and no exact zeros in binary layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bnn_deploy.metadata.preprocessing import Preprocessing, digits
from bnn_deploy.models.layers import BinaryConv2d
from bnn_deploy.models.registry import build_model
from bnn_deploy.weights.load_checkpoint import load_checkpoint
from bnn_deploy.weights.safetensors_file import (
    UnfitTensorsError,
    describe,
    read_metadata,
    read_tensors,
    write_tensors,
)
from bnn_deploy.weights.weights_file import ZERO, WeightsDescription, deployed_tensors, write_weights

TENSORS = {
    "c": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "b": torch.tensor(-0.0, dtype=torch.float64),
    "d": torch.tensor([[2**62]]),
    "empty": torch.zeros(0, 4),
    "turned": torch.arange(6, dtype=torch.float64).reshape(2, 3).t(),
}


def test_read_by_safetensors_itself(tmp_path: Path) -> None:
    """If this fails, what is trained here can be opened by nobody else, or has other bits there."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"one": "1", "ä": "\n"})
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"one": "1", "ä": "\n"}
    assert read_metadata(path) == {"one": "1", "ä": "\n"}
    expected = {name: describe(tensor) for name, tensor in TENSORS.items()}
    assert read_tensors(path, lambda names: expected).keys() == TENSORS.keys()


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    """If this fails, a repeated run cannot be compared with `sha256sum`: safetensors' own writer orders entries by a hash."""
    tensors = {name: torch.zeros(2) for name in "abcdefgh"}
    metadata = {name: name for name in "qwertyuiop"}
    write_tensors(tmp_path / "one", tensors, metadata)
    for mapping in (tensors, metadata):
        reordered = [mapping.popitem() for _ in list(mapping)]
        mapping.update(reordered)  # type: ignore[arg-type]
    write_tensors(tmp_path / "two", tensors, metadata)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    assert list(json.loads(content[8:].split(b"\0")[0])["__metadata__"]) == sorted(metadata)


def test_a_reader_that_expects_something_else(tmp_path: Path) -> None:
    """If this fails, tensors of any size are loaded before they are found not to fit."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})
    for expected, message in [
        ({}, "unknown a"),
        ({"a": ("F32", (4,))}, "its a is F32 3, expected F32 4"),
        ({"a": ("F64", (3,))}, "its a is F32 3, expected F64 3"),
        ({"a": ("F32", (3,)), "b": ("F32", ())}, "lacks b"),
    ]:
        with pytest.raises(UnfitTensorsError, match=message):
            read_tensors(path, lambda names, expected=expected: expected)


@pytest.mark.parametrize("name", ["bimlp_tiny", "bcdnet_tiny", "reactnet_a"])
def test_zeros_of_binary_weights(name: str, tmp_path: Path) -> None:
    """If this fails, `export` refuses what was trained here for its zeros, or the sign or the scale of a channel changes."""
    model = build_model(name, num_classes=3)
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, BinaryConv2d)}
    with torch.no_grad():
        for layer in layers.values():
            next(layer.parameters()).flatten()[::3] = 0.0
            next(layer.parameters()).flatten()[1::3] *= -0.0
    before = {path: (layer.binary_weight(), layer.weight_scale()) for path, layer in layers.items()}
    tensors = deployed_tensors(model, binary_weights=True)
    description = WeightsDescription(name, "", digits(8), ("a", "b", "c"), {})
    write_weights(tmp_path / "w.safetensors", tensors, description)
    report = load_checkpoint(model, tmp_path / "w.safetensors", zero_weights="error")
    assert not report.zero_weights and not report.ignored
    for path, layer in layers.items():
        signs, scale = before[path]
        assert torch.equal(layer.binary_weight(), signs)
        new = layer.weight_scale()
        # Terms of 1.2e-38 are below half a unit in the last place of any sum of weights of 0.1.
        assert (new is None) == (scale is None) and (new is None or torch.equal(new[scale != 0], scale[scale != 0]))
    assert ZERO < 0 and torch.tensor(ZERO).item() == ZERO


def test_real_weights_keep_their_zeros() -> None:
    """If this fails, a step with real weights deploys other weights than it learned."""
    model = build_model("bimlp_tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    tensors = deployed_tensors(model.double(), binary_weights=False)
    assert all(not bool(tensors[name].any()) for name, _ in model.named_parameters())
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}


def test_what_the_metadata_say(tmp_path: Path) -> None:
    """If this fails, `export` builds another variant, or classes have other names than they were trained with."""
    preprocessing = digits(8)
    training = {"step": "binary", "accuracy": 0.25}
    names = ("cat", "dög", 'a"b')
    description = WeightsDescription("bimlp_tiny", "released", preprocessing, names, training)
    write_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, description)
    metadata = read_metadata(tmp_path / "w.safetensors")
    assert metadata["bnn_deploy.model"] == "bimlp_tiny"
    assert metadata["bnn_deploy.variant"] == "released"
    assert metadata["bnn_deploy.num_classes"] == "3"
    assert metadata["bnn_deploy.input_size"] == "8"
    assert Preprocessing.from_json(metadata["bnn_deploy.preprocessing"]) == preprocessing
    assert tuple(json.loads(metadata["bnn_deploy.class_names"])) == names
    assert json.loads(metadata["bnn_deploy.training"]) == training
    assert len(metadata) == 7
