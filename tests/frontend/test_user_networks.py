"""Networks of users from export to bundle: what is computed around binary layers is what the file says, too."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.passes.onnx.import_report import ImportReport
from tests.frontend.exporters import EXPORTERS, export
from tests.frontend.plain_networks import randomised
from tests.frontend.user_networks import NETWORKS, BinaryConnectNetwork, Sign, ZeroOrOne

# Sums of at most 520 terms through at most 8 layers, all rounding errors of 2^-24 adding up: 8 * 520 * 2^-24 = 2.5e-4 of
# the largest value. A wrong weight, element or edge of an image changes an output by percents.
RELATIVE = 8 * 520 * 2.0**-24
# A value that is binarised nearer to its threshold than this may be binarised otherwise: 288 terms of 2^-24 each.
MARGIN = 288 * 2.0**-24


def margin(model: nn.Module, image: torch.Tensor) -> float:
    """The smallest distance from a threshold of what is binarised, relative to its root mean square."""
    found = [1.0]

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        distance = (inputs[0] - module.threshold).abs().min()
        found.append(float(distance / inputs[0].square().mean().sqrt()))

    hooks = [
        module.register_forward_pre_hook(look) for module in model.modules() if isinstance(module, (Sign, ZeroOrOne))
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return min(found)


def images(model: nn.Module, shape: tuple[int, ...], count: int) -> np.ndarray:
    seeded = (torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in range(400))
    kept = list(islice((image for image in seeded if margin(model, image) >= MARGIN), count))
    assert len(kept) == count
    return torch.cat(kept).numpy()


def compiled(
    path: Path, folder: Path, wanted: np.ndarray, batch: int = 1
) -> tuple[np.ndarray, np.ndarray, ImportReport]:
    """What the bundle computes, what onnxruntime computes of the file, and what the front end said."""
    reports: list[ImportReport] = []
    bundle = compile_model(path, "host", folder, batch=batch, found=reports.append)
    session = onnxruntime.InferenceSession(str(path))
    parts = np.split(wanted, len(wanted) // batch)
    expected = np.concatenate([session.run(None, {"image": part})[0] for part in parts])
    model = bnn_deploy.load(bundle.path)
    return np.concatenate([model(part) for part in parts]), expected, reports[0]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_every_binary_layer_is_found_and_the_outputs_agree(
    kind: type[nn.Module], exporter: str, tmp_path: Path
) -> None:
    """Breaks if a layer of a common style is missed, or any operator around it computes something else than onnxruntime."""
    shape, layers = NETWORKS[kind]
    torch.manual_seed(0)
    model = randomised(kind(), 0)
    path = export(model, tmp_path / "x.onnx", shape, exporter)
    found, expected, report = compiled(path, tmp_path / "bundle", images(model, shape, 3))
    assert len(report.binary_layers) == layers
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def test_several_images_at_once(tmp_path: Path) -> None:
    """Breaks if what is computed per image, or with one number per channel or pixel, is another image's in a batch."""
    for kind in list(NETWORKS)[:2]:
        shape, _ = NETWORKS[kind]
        torch.manual_seed(0)
        model = randomised(kind(), 0)
        path = export(model, tmp_path / f"{kind.__name__}.onnx", shape, "script")
        found, expected, _ = compiled(path, tmp_path / kind.__name__, images(model, shape, 4), batch=2)
        np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def test_binary_weights_alone_are_not_a_binary_layer(tmp_path: Path) -> None:
    """Breaks if BinaryConnect's layers are binarised, or the reason does not say that their input is real."""
    model = randomised(BinaryConnectNetwork(), 0)
    path = export(model, tmp_path / "x.onnx", (1, 8, 8), "script")
    _, _, report = compiled(path, tmp_path / "bundle", np.zeros((1, 1, 8, 8), np.float32))
    row = report.layers[1]
    assert not row.binary and row.weights == "±a per output channel"
    assert len(row.reasons) == 1 and "real values from Relu" in row.reasons[0]
