"""Would the parity checks notice? Every deliberate mistake must change the logits of a small network; without one they agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bnn_deploy
from bnn_deploy.compiler import compile_model
from tests.exporter_mistakes import network
from tests.exporter_mistakes.mistakes import EXPORT, Mutation


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, exported without mistakes."""
    return network.export(tmp_path_factory.mktemp("mutation"))


@pytest.fixture(scope="module")
def logits(path: Path) -> np.ndarray:
    """What onnxruntime computes from that file."""
    return network.runtime(path)


def test_control_onnxruntime_agrees_with_pytorch(logits: np.ndarray) -> None:
    """Breaks: the exporter; then nothing below shows anything."""
    assert network.difference(logits, network.pytorch()) <= network.TOLERANCE


def test_control_compiled_kernels_agree_with_onnxruntime(path: Path, logits: np.ndarray, tmp_path: Path) -> None:
    """Breaks: the compiler; then nothing below shows anything."""
    assert network.difference(network.compiled(path, tmp_path), logits) <= network.TOLERANCE


def test_control_bundle_agrees_with_onnxruntime(path: Path, logits: np.ndarray, tmp_path: Path) -> None:
    """Breaks: the bundle or the runtime computes something else than the plan that the mutations are seen in."""
    bundle = compile_model(path, "host", tmp_path / "bundle", batch=network.BATCH)
    found = bnn_deploy.load(bundle.path)(network.inputs())
    assert network.difference(found, logits) <= network.TOLERANCE


@torch.no_grad()
def test_control_the_network_can_show_mistakes() -> None:
    """Breaks: the network has no sign at zero, or one decision so close that rounding could pass for a mistake."""
    module, x = network.network(), torch.from_numpy(network.inputs())
    first, second, last = module.compared(x)
    assert (first == 0).sum() > 10
    # Exact quarters: no rounding can change a sign.
    assert torch.equal(first * 4, (first * 4).round())
    # The other decisions: 100 operations on values below 16 move none of them, see TOLERANCE.
    assert (second.abs() - 0.5).abs().min() > network.TOLERANCE
    assert last.abs().min() > network.TOLERANCE
    assert (second.abs() < 0.5).float().mean() > 0.05
    features = module.features(x).abs()
    magnitude = (module.head.weight.abs() @ features.mean((2, 3)).T).max() + module.head.bias.abs().max()
    assert max(magnitude, features.max(), second.abs().max()) < network.LARGEST_MAGNITUDE


@pytest.mark.parametrize("mutation", EXPORT, ids=lambda mutation: mutation.__name__)
def test_mistake_of_the_exporter_is_noticed(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Breaks: export could be wrong in this way and the comparison of onnxruntime with PyTorch would pass."""
    mutation(monkeypatch)
    mutant = network.export(tmp_path)
    assert network.difference(network.runtime(mutant), network.pytorch()) > network.TOLERANCE
