"""Calibrated weights: margins, determinism, and that rounding cannot flip a bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnn_deploy.errors import InputError
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.bcdnet import BCDNET_TINY, BCDNet
from bnn_deploy.models.calibration import (
    WANTED_MARGIN,
    CalibrationReport,
    calibrate,
    seeded_model,
)
from bnn_deploy.models.gaps import gap_shift
from bnn_deploy.models.layers import BinaryActivation, TernaryActivation
from bnn_deploy.models.random_weights import randomise


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 60),
    boundaries=st.sampled_from([(0.0,), (-0.5, 0.5)]),
    levels=st.sampled_from([1, 2, 10, 10**6]),
    seed=st.integers(0, 2**31),
)
def test_gap_shift_keeps_the_margin(rows, columns, boundaries, levels, seed) -> None:
    """Fails if a shifted value could lie near a boundary, also for constant and repeated values."""
    values = np.random.RandomState(seed).randint(0, levels, (rows, columns)).astype(np.float32) / np.float32(levels) * 4
    margin = 1e-3
    shifted = values + gap_shift(values, boundaries, margin)[:, None]
    distance = min(np.abs(shifted - boundary).min() for boundary in boundaries)
    # Values and shifts are below 16, so each of the few roundings of the two sides is below 1e-6.
    assert distance >= margin - 4e-6


def test_gap_shift_prefers_the_middle() -> None:
    """Fails if thresholds went where all values have the same sign although the middle has room."""
    values = np.linspace(-3, 5, 101, dtype=np.float32)[None]
    positive = (values + gap_shift(values, (0.0,), 1e-3)[:, None] > 0).mean()
    assert 0.2 < positive < 0.8


def binarised(model: nn.Module, images: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    outputs = {}
    for name, module in model.named_modules():
        if isinstance(module, BinaryActivation | TernaryActivation):
            module.register_forward_hook(lambda m, args, output, name=name: outputs.update({name: output}))
    with torch.no_grad():
        logits = model(images)
    return outputs, logits


def calibrated(name: str) -> tuple[nn.Module, CalibrationReport, torch.Tensor]:
    if name == "bcdnet_b":
        model = BCDNet(BCDNET_TINY, num_classes=10, data_dependent=True).eval()
        inputs = calibration_inputs(7, 4, (3, 32, 32))
        randomise(model, 7)
        return model, calibrate(model, inputs), torch.from_numpy(inputs)
    name, _, variant = name.partition("/")
    model, report = seeded_model(name, seed=7, samples=4, variant=variant or None)
    shape = (1, 8, 8) if name == "bimlp_tiny" else (3, 32, 32)
    return model, report, torch.from_numpy(calibration_inputs(7, 4, shape))


@pytest.mark.parametrize("name", ["bimlp_tiny/paper", "bimlp_tiny/released", "bcdnet_tiny", "bcdnet_b"])
def test_float64_gives_the_same_bits(name: str) -> None:
    """Fails if rounding alone could flip a bit, which would make every parity check of random weights meaningless."""
    model, report, images = calibrated(name)
    single, logits = binarised(copy.deepcopy(model), images)
    double, exact = binarised(copy.deepcopy(model).double(), images.double())
    assert [layer.name for layer in report.layers] == list(single) == list(double)
    for layer in report.layers:
        assert torch.equal(single[layer.name].double(), double[layer.name]), layer
        assert layer.relative > WANTED_MARGIN / 4
        assert layer.absolute > 0
        # Every layer keeps different outputs, or it could hide a wrong bit.
        assert single[layer.name].unique().numel() >= 2
    # Measured 2e-6; ten times that leaves room for another order of summation. One wrong bit costs 1e-2 or more.
    torch.testing.assert_close(logits.double(), exact, rtol=0, atol=2e-5)
    assert len(set(report.predictions)) > 1
    assert report.logit_margin > 1e-3


def test_reported_margins_are_the_true_ones() -> None:
    """Fails if the report promised a distance that the model's activations do not keep."""
    model, report, images = calibrated("bimlp_tiny/released")
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, TernaryActivation):
            module.register_forward_pre_hook(
                lambda m, args, name=name: found.update({name: float((args[0].abs() - 0.5).abs().min())})
            )
    with torch.no_grad():
        model(images)
    assert found == pytest.approx({layer.name: layer.absolute for layer in report.layers}, rel=1e-6)
    assert report.smallest.relative == min(layer.relative for layer in report.layers)


def test_same_seed_same_model() -> None:
    """Fails if an exported model could not be made again from its seed."""
    first, second, other = (seeded_model("bcdnet_tiny", seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seeds_are_refused(seed: int) -> None:
    """Fails if a seed that numpy cannot take ended in numpy's own error."""
    with pytest.raises(InputError, match=f"seed {seed}"):
        seeded_model("bcdnet_tiny", seed=seed)


def test_activation_without_a_bias_is_named() -> None:
    """Fails if calibration silently left an activation without a margin."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), BinaryActivation())
    with pytest.raises(InputError, match="activation 1 has no learnable bias"):
        calibrate(model, calibration_inputs(0, 1, (1, 4, 4)))
