"""Layers from PyTorch: the same bits under the same names as onnxruntime's, and margins that hold and are small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.references.layer_values import LayerValues
from bnn_deploy.references.margin import LARGEST_MARGIN, RELATIVE_MARGIN, SAFETY, margin_of
from bnn_deploy.references.torch_layers import TorchLayers
from tests.references.graphs import layers_of

# bimlp_tiny as in the paper has no layer that these lack.
MODELS = (("bimlp_tiny", "released"), ("bcdnet_tiny", None))


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[0])
def exported(request: pytest.FixtureRequest, tiny_model: Callable[..., Path]) -> Path:
    return tiny_model(*request.param)


def forced_in_float64(layers: TorchLayers, images: np.ndarray, values: LayerValues) -> dict[str, np.ndarray]:
    """What each activation is given in float64 when all signs are held at ``values``."""
    names = {sign.layer: tensor for tensor, sign in values.signs.items()}
    found: dict[str, np.ndarray] = {}

    def hook(name: str) -> object:
        def forced(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            found[names[name]] = inputs[0].numpy().copy()
            return torch.tensor(values.signs[names[name]].values, dtype=torch.float64)

        return forced

    module = layers._module.double()
    hooks = [layers._modules[name].register_forward_hook(hook(name)) for name in names]
    with torch.inference_mode():
        module(torch.tensor(images, dtype=torch.float64))
    for each in hooks:
        each.remove()
    module.float()
    return found


def test_the_same_as_onnxruntime(exported: Path) -> None:
    """Breaks if PyTorch's values get another name, layout or sign than those of the exported file, or margins do not hold."""
    runtime, layers = layers_of(exported, "onnxruntime"), layers_of(exported, "torch")
    assert isinstance(layers, TorchLayers)
    images = np.random.default_rng(0).standard_normal((2, *layers.input_shape)).astype(np.float32)
    floats = [node.output[0] for node in layers.model.graph.node if node.op_type in ("PRelu", "Add", "Conv", "Gemm")]
    expected, found = runtime.capture(images, floats), layers.capture(images, floats)
    assert list(expected.signs) == list(found.signs)
    for tensor, sign in expected.signs.items():
        other = found.signs[tensor]
        assert (sign.layer, sign.fed_by, sign.ternary) == (other.layer, other.fed_by, other.ternary)
        assert sign.values.shape == other.values.shape
        differing = np.flatnonzero(sign.values != other.values)
        assert not np.setdiff1d(differing, sign.within()).size, sign.layer
        # Random images: a bit within its margin may flip, and everything after it is then another network.
        if differing.size:
            break
    else:
        assert set(floats) == set(expected.floats) and len(found.floats) > len(floats) // 2
        for tensor, values in found.floats.items():
            largest = np.abs(expected.floats[tensor]).max()
            error = np.abs(expected.floats[tensor] - values).max()
            assert error <= expected.float_margins[tensor] * largest, tensor
    output = layers.model.graph.output[0].name
    assert output in found.float_margins and output in expected.float_margins


def test_margins_hold_and_are_small(exported: Path) -> None:
    """Breaks if rounding goes farther than the margin, or the margin is so wide that it hides faults."""
    layers = layers_of(exported, "torch")
    assert isinstance(layers, TorchLayers)
    images = np.random.default_rng(1).standard_normal((2, *layers.input_shape)).astype(np.float32)
    values = layers.capture(images)
    exact = forced_in_float64(layers, images, values)
    runtime = layers_of(exported, "onnxruntime").capture(images)
    inputs = {tensor: raw.x for tensor, raw in layers._run(images, {}).signs.items()}
    for tensor, sign in values.signs.items():
        # The distance of two computations is the sum of two such errors.
        error = np.abs(inputs[tensor] - exact[tensor]).max() / sign.scale
        assert 2 * error <= sign.margin, sign.layer
        assert RELATIVE_MARGIN <= sign.margin <= 2.0**-12, sign.layer
        # Measured in the same way for every reference; other bits move a little less or more.
        assert 1 / 4 <= runtime.signs[tensor].margin / sign.margin <= 4
    within = sum(len(sign.within()) for sign in values.signs.values())
    assert within <= 1e-3 * sum(sign.values.size for sign in values.signs.values())


def test_limits_of_margins() -> None:
    """Breaks if a layer of zeros divides by zero, or a jump of the values makes a margin in which everything is right."""
    assert margin_of(0.0, 0.0) == RELATIVE_MARGIN
    assert margin_of(1.0, 1.0) == LARGEST_MARGIN
    assert margin_of(2.0**-20, 2.0) == SAFETY * 2.0**-21


class Twice(nn.Module):
    """Runs a network two times, as a network with shared activations runs those."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) + self.module(x)


class Never(nn.Module):
    """Runs nothing of a network."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 10)


def test_modules_that_have_no_one_value(tiny_onnx: Path) -> None:
    """Breaks if a module that runs twice or never gives the values of one run, or those of nothing."""
    layers = layers_of(tiny_onnx, "torch")
    images = np.zeros((1, *layers.input_shape), np.float32)
    layers._module = Twice(layers._module)
    with pytest.raises(ModelFileError, match="calls more than once"):
        layers.capture(images)
    layers._module = Never()
    with pytest.raises(ModelFileError, match="does not run the module"):
        layers.capture(images)


def test_files_that_are_another_network(tiny_onnx: Path, tmp_path: Path) -> None:
    """Breaks if a file whose signs are no modules of the model is compared by luck, or the error does not say what to do."""
    model = onnx.load(tiny_onnx)
    sign = next(node for node in model.graph.node if node.op_type == "Sign")
    sign.name = "elsewhere"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="'elsewhere' is no activation module"):
        layers_of(tmp_path / "m.onnx", "torch")
    with pytest.raises(InputError, match="Unknown reference 'tflite'"):
        layers_of(tiny_onnx, "tflite")
    with pytest.raises(InputError, match="--weights is for --reference torch"):
        layers_of(tiny_onnx, "onnxruntime", weights=tmp_path / "w.pt")
