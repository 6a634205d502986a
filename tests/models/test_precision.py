"""Switching a model between binary and real values, and what stays the same."""

from __future__ import annotations

import itertools

import pytest
import torch

from bnn_deploy.errors import InputError
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation
from bnn_deploy.models.precision import set_gradient, set_precision
from bnn_deploy.models.random_weights import randomise
from bnn_deploy.models.registry import MODELS, build_model

PRECISIONS = list(itertools.product(["binary", "real"], repeat=2))
SMALL = [("bimlp_tiny", "paper"), ("bimlp_tiny", "released"), ("bcdnet_tiny", None)]


@pytest.mark.parametrize("name", MODELS)
def test_names_are_the_same_in_every_precision(name: str) -> None:
    """Breaks when the weights of one step of a recipe could not start the next one, in any model."""
    with torch.device("meta"):
        model = build_model(name)
    expected = [(key, value.shape) for key, value in model.state_dict().items()]
    for activations, weights in PRECISIONS:
        set_precision(model, activations=activations, weights=weights)
        assert [(key, value.shape) for key, value in model.state_dict().items()] == expected


@pytest.mark.parametrize(("name", "variant"), SMALL)
def test_precision_reaches_every_layer_and_comes_back(name: str, variant: str | None) -> None:
    """Breaks when a binary layer is missed on the way to real values, or some of them stay real on the way back."""
    model = build_model(name, variant=variant)
    randomise(model, seed=0)
    spec = MODELS[name]
    x = torch.randn(2, *spec.default_shape, generator=torch.Generator().manual_seed(0))
    before = model(x)
    results = []
    for activations, weights in PRECISIONS:
        set_precision(model, activations=activations, weights=weights)
        seen = _activations_and_weights(model, x)
        assert seen == ({activations}, {weights})
        results.append(model(x))
    for first, second in itertools.combinations(results, 2):
        assert not torch.equal(first, second)
    set_precision(model, activations="binary", weights="binary")
    assert torch.equal(model(x), before)


def _activations_and_weights(model: torch.nn.Module, x: torch.Tensor) -> tuple[set[str], set[str]]:
    """The precisions found by looking at what the layers compute, not at their attributes."""
    activations: set[str] = set()
    weights: set[str] = set()

    def look(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, BinaryActivation | TernaryActivation):
            activations.add("real" if torch.equal(output, inputs[0]) else "binary")
            return
        if not isinstance(module, BinaryConv2d):
            return
        real = module._convolve(inputs[0], module.real_weight())
        # With one input channel in each group, a scale for each tap is the weight's own magnitude: both are the same.
        if module.scaling == "tap" and module.weight_shape[1] == 1:
            return
        weights.add("real" if torch.equal(output, real) else "binary")

    handles = [module.register_forward_hook(look) for module in model.modules() if not list(module.children())]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return activations, weights


def test_gradient_reaches_every_sign() -> None:
    """Breaks when some activation keeps the estimator of its model although the recipe names another."""
    model = build_model("bimlp_tiny")
    signs = [module for module in model.modules() if isinstance(module, BinaryActivation)]
    assert {module.gradient for module in signs} == {"clip"}
    set_gradient(model, "polynomial")
    assert len(signs) > 10
    assert {module.gradient for module in signs} == {"polynomial"}


def test_ternary_activations_have_one_gradient() -> None:
    """Breaks when a recipe's gradient is silently ignored by the ternary activations of the released BiMLP."""
    model = build_model("bimlp_tiny", variant="released")
    with pytest.raises(InputError, match=r"attn\.binarise_thetah is ternary .* choose 'clip'"):
        set_gradient(model, "polynomial")
    set_gradient(model, "clip")


def test_unknown_names_are_refused() -> None:
    """Breaks when a misspelt precision or gradient leaves the model as it was without a word."""
    layer = BinaryLinear(2, 2)
    with pytest.raises(InputError, match="'float' of the weights; choose 'binary' or 'real'"):
        set_precision(layer, activations="binary", weights="float")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'ste'.* choose 'clip' or 'polynomial'"):
        set_gradient(layer, "ste")  # type: ignore[arg-type]
    assert layer.binary
