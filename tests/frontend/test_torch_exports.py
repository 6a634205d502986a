"""Networks of plain PyTorch, through both exporters of torch.onnx.export, to bits: nothing in them knows bnn-deploy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import bnn_deploy
from bnn_deploy.compiler import compile_model
from bnn_deploy.devices.registry import get_device
from bnn_deploy.errors import ModelFileError
from bnn_deploy.frontend.open_model import import_file, open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport
from tests.frontend import plain_networks as networks
from tests.frontend.exporters import EXPORTERS, export

# Values nearer to a threshold than this part of their layer's root mean square may flip in another order of summation:
# sums of 288 terms (3x3x32) of rounding error 2^-24 each, all adding up, are 288 * 2^-24 = 1.7e-5 of the largest.
MARGIN = 2e-5
# No sign flips then, and what is left are float32 sums of at most 288 terms through at most 8 layers: relative to logits of
# a few units, 8 * 288 * 2^-24 = 1.4e-4 were all errors to add up in one direction, times the largest logit.
RELATIVE = 8 * 288 * 2.0**-24


def run_onnx(path: Path | bytes, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path if isinstance(path, bytes) else str(path), options)
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def network(kind: type, activation: type, seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return networks.randomised(kind(activation), seed)


CASES = [
    (networks.PlainCNN, networks.PolynomialSign),
    (networks.PlainCNN, networks.RoundedClip),
    (networks.PlainMLP, networks.PolynomialSign),
    (networks.PlainMLP, networks.IdentitySign),
    (networks.PlainMLP, networks.CastSign),
]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kind, activation", CASES, ids=lambda part: part.__name__)
def test_compiled_as_onnxruntime_runs_the_file(kind: type, activation: type, exporter: str, tmp_path: Path) -> None:
    """Breaks if a binary layer of a plain export is not found, or the bundle computes something else than the file."""
    module = network(kind, activation)
    images = networks.images_with_margin(module, kind.shape, 4, MARGIN).numpy()
    path = export(module, tmp_path / "x.onnx", kind.shape, exporter)
    reports: list[ImportReport] = []
    bundle = compile_model(path, "host", tmp_path / "b", found=reports.append)
    layers = [layer.name for layer in reports[0].layers if layer.binary]
    assert len(layers) == kind.binary_layers and len(set(layers)) == len(layers)
    modules = dict(module.named_modules())
    assert set(layers) <= set(modules), "layers are called as their modules"
    model = bnn_deploy.load(bundle.path)
    found = np.concatenate([model(image[None]) for image in images])
    assert_close(found, run_onnx(path, images))
    with torch.no_grad():
        assert_close(found, module(torch.from_numpy(images)).numpy())


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("activation", [networks.PolynomialSign, networks.RoundedClip], ids=lambda part: part.__name__)
def test_on_arm64(activation: type, tmp_path: Path) -> None:
    """Breaks if a foreign network is right on this machine only."""
    module = network(networks.PlainCNN, activation)
    images = networks.images_with_margin(module, networks.PlainCNN.shape, 3, MARGIN).numpy()
    path = export(module, tmp_path / "x.onnx", networks.PlainCNN.shape, "dynamo")
    bundle = compile_model(path, "arm64", tmp_path / "b")
    assert_close(get_device("qemu").run(bundle, images), run_onnx(path, images))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_imported_file_runs_everywhere_and_compiles_alike(exporter: str, tmp_path: Path) -> None:
    """Breaks if the file that `import` writes is no valid ONNX, computes something else, or compiles differently."""
    module = network(networks.PlainCNN, networks.PolynomialSign)
    images = networks.images_with_margin(module, networks.PlainCNN.shape, 3, MARGIN).numpy()
    path = export(module, tmp_path / "x.onnx", networks.PlainCNN.shape, exporter)
    report = import_file(path, tmp_path / "imported.onnx")
    assert len(report.binary_layers) == networks.PlainCNN.binary_layers
    onnx.checker.check_model(str(tmp_path / "imported.onnx"), full_check=True)
    assert_close(run_onnx(tmp_path / "imported.onnx", images), run_onnx(path, images))
    again = open_model(tmp_path / "imported.onnx")
    assert not again.foreign
    assert again.model.SerializeToString(deterministic=True) == (tmp_path / "imported.onnx").read_bytes()
    direct = compile_model(path, "host", tmp_path / "direct")
    through_file = compile_model(tmp_path / "imported.onnx", "host", tmp_path / "through_file")
    assert [step["kernel"] for step in direct.manifest["steps"]] == [
        step["kernel"] for step in through_file.manifest["steps"]
    ]


def test_fixed_batch(tmp_path: Path) -> None:
    """Breaks if a file exported without dynamic axes, as the default is, cannot be compiled for its batch."""
    module = network(networks.PlainMLP, networks.PolynomialSign)
    images = networks.images_with_margin(module, networks.PlainMLP.shape, 3, MARGIN).numpy()
    for exporter in EXPORTERS:
        path = export(module, tmp_path / f"{exporter}.onnx", networks.PlainMLP.shape, exporter, batch=3)
        bundle = compile_model(path, "host", tmp_path / exporter, batch=3)
        assert_close(bnn_deploy.load(bundle.path)(images), run_onnx(path, images))


def test_a_network_without_binary_layers_is_refused(tmp_path: Path) -> None:
    """Breaks if a real-valued network is compiled without a word, or the error does not name the nearest misses."""
    path = export(networks.randomised(networks.RealMLP(), 0), tmp_path / "x.onnx", networks.RealMLP.shape, "dynamo")
    with pytest.raises(ModelFileError) as raised:
        open_model(path)
    message = str(raised.value)
    assert "No binary layers found" in message and "4 real-valued Conv/Gemm/MatMul layers" in message
    assert sum(f"body.{index} (" in message for index in (1, 3, 5, 7)) == 3
    assert "\n" not in message


def test_explain_lists_the_layers_of_a_refused_network(tmp_path: Path, invoke) -> None:
    """Breaks if the error tells to look at --explain, and that says nothing, or an output is left behind."""
    path = export(networks.randomised(networks.RealMLP(), 0), tmp_path / "x.onnx", networks.RealMLP.shape, "script")
    result = invoke("import", path, "-o", tmp_path / "y.onnx", "--explain")
    assert result.exit_code == 2 and result.stdout == ""
    assert all(f"body.{index} stays real-valued" in result.stderr for index in (1, 3, 5, 7))
    assert not (tmp_path / "y.onnx").exists()


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_mixed_network_says_what_stays_real(exporter: str, tmp_path: Path) -> None:
    """Breaks if two-bit activations or three-valued weights are taken for binary, or stay real-valued without a reason."""
    torch.manual_seed(3)
    module = networks.randomised(networks.MixedNetwork(), 3)
    images = networks.images_with_margin(module, networks.MixedNetwork.shape, 4, MARGIN).numpy()
    path = export(module, tmp_path / "x.onnx", networks.MixedNetwork.shape, exporter)
    reports: list[ImportReport] = []
    options = ImportOptions(zero_weights="float")
    bundle = compile_model(path, "host", tmp_path / "b", options=options, found=reports.append)
    # By place: the dynamo exporter folds normalisation into the layer before it, and calls the result after either.
    first, binary, quantised, ternary = reports[0].layers
    assert [row.binary for row in reports[0].layers] == [False, True, False, False]
    assert binary.name in ("binary", "norm")
    assert "4 values (2 bits)" in " ".join(quantised.reasons)
    assert "162 of its 640 weights are exactly 0" in " ".join(ternary.reasons)
    assert "different magnitudes" in " ".join(first.reasons)
    found = np.concatenate([bnn_deploy.load(bundle.path)(image[None]) for image in images])
    # Two-bit quantisation rounds at thresholds of its own, where the margin is not known: the images above keep it.
    assert_close(found, run_onnx(path, images))


def test_weights_that_are_zero_are_the_users_choice(tmp_path: Path) -> None:
    """Breaks if a weight that is exactly 0 becomes -1 without the user having said so, or goes uncounted."""
    module = network(networks.PlainMLP, networks.IdentitySign)
    layer = module.body[4]
    with torch.no_grad():
        layer.weight[5, 7] = 0.0
        layer.weight[9, 1:3] = 0.0
    path = export(module, tmp_path / "x.onnx", networks.PlainMLP.shape, "dynamo")
    with pytest.raises(ModelFileError, match=r"body\.4.*3.*--zero-weights"):
        open_model(path)
    chosen = open_model(path, ImportOptions(zero_weights="-1")).report
    assert {row.name: row.zero_weights for row in chosen.layers if row.zero_weights} == {"body.4": 3}
    real = {row.name: row.binary for row in open_model(path, ImportOptions(zero_weights="float")).report.layers}
    assert real["body.4"] is False and sum(real.values()) == 1
