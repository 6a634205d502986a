"""What a graph says of sign(0): kept exactly, or changed by the user's choice and counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions
from tests.frontend import plain_networks as networks
from tests.frontend.exporters import EXPORTERS, export
from tests.frontend.test_torch_exports import run_onnx


class SignOfPixels(nn.Module):
    """(N, 1, 8, 8) to (N, 10): the image itself is binarised, and black pixels are exactly 0."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.sign = networks.PolynomialSign()
        self.layer = networks.ScaledSignLinear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.sign(x.flatten(1)))


def images() -> np.ndarray:
    generator = np.random.default_rng(0)
    pixels = generator.standard_normal((3, 1, 8, 8)).astype(np.float32)
    pixels[generator.random(pixels.shape) < 0.5] = 0.0
    return pixels


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return SignOfPixels().eval()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_zero_is_kept_where_it_is_to_be_expected(module: nn.Module, exporter: str, tmp_path: Path) -> None:
    """Breaks if sign(0) = 0 of a plain export is lost by default although zeros are frequent."""
    path = export(module, tmp_path / "x.onnx", SignOfPixels.shape, exporter)
    opened = open_model(path)
    assert [(row.graph_zero, row.compiled_zero) for row in opened.report.activations] == [(0, 0)]
    bundle = compile_model(path, "host", tmp_path / "b")
    found = np.concatenate([bnn_deploy.load(bundle.path)(image[None]) for image in images()])
    # Exact integers up to 64, times one scale: two roundings in onnxruntime's products and sums of 64 terms.
    expected = run_onnx(path, images())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * 64 * 2**-24 * 64 * 0.1)


@pytest.mark.parametrize("choice, value", [("-1", -1.0), ("+1", 1.0)])
def test_zero_is_changed_on_request_and_counted(
    module: nn.Module, choice: str, value: float, tmp_path: Path, invoke
) -> None:
    """Breaks if --sign-zero does not decide what zeros become, or validate does not say how many there were."""
    path = export(module, tmp_path / "x.onnx", SignOfPixels.shape, "dynamo")
    assert invoke("compile", path, "--target", "host", "-o", tmp_path / "b", "--sign-zero", choice).exit_code == 0
    found = np.concatenate([bnn_deploy.load(tmp_path / "b")(image[None]) for image in images()])
    replaced = np.where(images() == 0, np.float32(value), images())
    np.testing.assert_allclose(found, run_onnx(path, replaced), rtol=0, atol=2 * 64 * 2**-24 * 64 * 0.1)

    np.savez(tmp_path / "data.npz", x=images())
    arguments = (
        "validate",
        path,
        "--bundle",
        tmp_path / "b",
        "--data",
        tmp_path / "data.npz",
        "--level",
        3,
        "--min-agreement",
        0,
    )
    result = json.loads(invoke(*arguments, "--format", "json").stdout)
    zeros = int((images() == 0).sum())
    assert result["zero_activations"]["zeros"] == zeros
    assert result["zero_activations"]["compared"] == images().size
    text = invoke(*arguments).stdout
    assert f"{zeros} of {images().size}" in text


def test_rare_zeros_become_minus_one_and_the_user_is_told(tmp_path: Path, invoke) -> None:
    """Breaks if a network whose sums meet 0 only by accident loses its speed to three values, or nobody says a word."""
    torch.manual_seed(1)
    module = networks.randomised(networks.PlainMLP(networks.PolynomialSign), 1)
    path = export(module, tmp_path / "x.onnx", networks.PlainMLP.shape, "dynamo")
    rows = open_model(path).report.activations
    assert [(row.graph_zero, row.compiled_zero) for row in rows] == [(0, -1), (0, -1)]
    exact = open_model(path, ImportOptions(sign_zero="0")).report.activations
    assert [row.compiled_zero for row in exact] == [0, 0]
    told = invoke("import", path, "-o", tmp_path / "y.onnx")
    assert told.exit_code == 0 and "--sign-zero" in told.stderr


def test_graphs_that_decide_are_not_asked(tmp_path: Path) -> None:
    """Breaks if x >= 0 -> +1 of a graph becomes -1 because of a default or an option that is about sign(0) = 0."""
    torch.manual_seed(1)
    module = networks.randomised(networks.PlainMLP(networks.IdentitySign), 1)
    path = export(module, tmp_path / "x.onnx", networks.PlainMLP.shape, "dynamo")
    for choice in ("auto", "-1", "0"):
        rows = open_model(path, ImportOptions(sign_zero=choice)).report.activations
        assert [(row.graph_zero, row.compiled_zero) for row in rows] == [(1, 1), (1, 1)]


class ThresholdPerChannel(nn.Module):
    """(N, 1, 8, 8) to (N, 10): 1, 0 or -1 where a pixel is above, at or below a learned number of its column."""

    shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.arange(64.0) / 64)
        self.layer = networks.ScaledSignLinear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.layer((x > self.threshold).float() - (x < self.threshold).float())


def test_values_on_a_threshold_per_channel_are_counted(tmp_path: Path, invoke) -> None:
    """Breaks if validate cannot count, or refuses, where the threshold is a vector of the file."""
    torch.manual_seed(0)
    path = export(ThresholdPerChannel().eval(), tmp_path / "x.onnx", ThresholdPerChannel.shape, "dynamo")
    assert invoke("compile", path, "--target", "host", "-o", tmp_path / "b", "--sign-zero", "-1").exit_code == 0
    pixels = images()
    pixels[1] = (np.arange(64, dtype=np.float32) / 64).reshape(1, 8, 8)
    np.savez(tmp_path / "data.npz", x=pixels)
    arguments = (
        "--bundle",
        tmp_path / "b",
        "--data",
        tmp_path / "data.npz",
        "--level",
        3,
        "--min-agreement",
        0,
        "--format",
        "json",
    )
    result = json.loads(invoke("validate", path, *arguments).stdout)
    on_threshold = int((pixels.reshape(3, 64) == np.arange(64, dtype=np.float32) / 64).sum())
    assert on_threshold >= 64 and result["zero_activations"]["zeros"] == on_threshold
