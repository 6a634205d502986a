"""BiMLP: its block against a second computation from the equations, its pooling, its variants."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from bnn_deploy.errors import InputError
from bnn_deploy.models.bimlp_layers import Variant, same_max_pool
from bnn_deploy.models.calibration import seeded_model
from bnn_deploy.models.layers import BinaryActivation, TernaryActivation
from bnn_deploy.models.registry import build_model

spec = importlib.util.spec_from_file_location("bimlp_equations", Path(__file__).with_name("bimlp_equations.py"))
equations = importlib.util.module_from_spec(spec)
spec.loader.exec_module(equations)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("stage", [0, 2])
def test_block_against_equations(variant: str, stage: int) -> None:
    """Fails if PATM, its softmax, a uni-shortcut, a 7-tap layer or the final mix strayed from the published ones."""
    model, _ = seeded_model("bimlp_tiny", seed=5, variant=variant)
    block = model.double().network[stage][0]
    channels = block.move_h.bias.shape[1]
    x = torch.from_numpy(np.random.RandomState(1).standard_normal((2, channels, 8, 9)))
    state = {name: value.detach().numpy() for name, value in block.state_dict().items()}
    expected = equations.BlockEquations(state, variant).block(x.numpy())
    with torch.no_grad():
        found = block(x).numpy()
    # float64 throughout: 1e3 roundings of 1e-16 on values below 1e2 stay far below 1e-10, a flipped bit far above.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_uni_shortcut_orders() -> None:
    """Fails if the paper's contiguous chunks and the released code's adjacent channels were exchanged."""
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert Variant(adjacent=False).average(x, 4).flatten().tolist() == [3.0, 4.0]
    assert Variant(adjacent=True).average(x, 4).flatten().tolist() == [1.5, 5.5]


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), kernel=st.sampled_from([2, 3, 5, 7]))
def test_same_max_pool(height: int, width: int, kernel: int) -> None:
    """Fails if "same" padding put the odd pixel before instead of after, at even or odd sizes."""
    x = torch.from_numpy(np.random.RandomState(height * 13 + width).standard_normal((1, 2, height, width)))
    pads = []
    for side in (width, height):
        total = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    expected = F.max_pool2d(F.pad(x, pads, value=-torch.inf), kernel, stride=2)
    assert torch.equal(same_max_pool(x, kernel), expected)


@pytest.mark.parametrize(
    ("name", "variant", "activation", "group_norms", "scalings"),
    [
        ("bimlp_s", "paper", BinaryActivation, 0, {"channel"}),
        ("bimlp_s", "released", TernaryActivation, 0, {"channel", "tap"}),
        ("bimlp_m", "paper", BinaryActivation, 0, {"channel"}),
        ("bimlp_m", "released", TernaryActivation, 41, {"channel", "tap"}),
    ],
)
def test_what_a_variant_changes(name, variant, activation, group_norms, scalings) -> None:
    """Fails if a variant had the other one's activations, norms or weight scales."""
    modules = list(build_model(name, variant=variant).modules())
    kinds = {type(module) for module in modules if isinstance(module, BinaryActivation | TernaryActivation)}
    assert kinds == {activation}
    assert sum(isinstance(module, nn.GroupNorm) for module in modules) == group_norms
    assert {module.scaling for module in modules if hasattr(module, "scaling")} == scalings


def test_bad_images_are_refused() -> None:
    """Fails if a wrong channel count, rank or size ended in PyTorch's own error."""
    model = build_model("bimlp_s")
    for shape in ((1, 1, 32, 32), (3, 32, 32), (1, 3, 2, 32)):
        with pytest.raises(InputError):
            model(torch.zeros(shape))
