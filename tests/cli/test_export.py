"""``export``: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file
from torch import nn

from bnn_deploy.export.provenance import build, rebuild
from bnn_deploy.models.calibration import seeded_model
from bnn_deploy.references.whole_model import open_reference
from tests.weights.mindspore_files import checkpoint, mindspore_names, with_crc

Invoke = Callable[..., Result]


def metadata_of(path: Path) -> dict[str, str]:
    return {item.key.removeprefix("bnn_deploy."): item.value for item in onnx.load(path).metadata_props}


def test_seeded_weights_are_recorded(tiny_onnx: Path) -> None:
    """Breaks if a file does not say how to build its model again, or on which inputs it keeps a margin."""
    metadata = metadata_of(tiny_onnx)
    assert (metadata["model"], metadata["variant"]) == ("bimlp_tiny", "paper")
    assert (metadata["num_classes"], metadata["input_size"]) == ("10", "8")
    assert json.loads(metadata["calibration"]) == {"seed": 0, "samples": 2, "shape": [1, 8, 8], "kind": "normal"}
    assert "seeded" in metadata["weights"] and len(metadata["weights_sha256"]) == 64


@dataclass(frozen=True)
class Trained:
    """A model, its weights in files, and what ``export`` made of the state dict alone with ``OPTIONS``."""

    model: nn.Module
    files: dict[str, Path]
    onnx: Path
    result: Result


OPTIONS = ("--variant", "released", "--num-classes", 3, "--input-size", 12, "--batch", 2, "--format", "json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    model, _ = seeded_model("bimlp_tiny", seed=5, variant="released", num_classes=3, input_size=12)
    files = weights_in_every_form(folder, dict(model.state_dict()))
    result = invoke("export", "bimlp_tiny", "-o", folder / "x.onnx", "--weights", files["plain"], *OPTIONS)
    return Trained(model, files, folder / "x.onnx", result)


def weights_in_every_form(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, Path]:
    """The same BiMLP weights as PyTorch, PyTorch's training code, safetensors, MindSpore and numpy write them."""
    theirs = mindspore_names(state)
    moments = {f"moments.{name}": torch.zeros_like(value) for name, value in theirs.items()}
    torch.save(state, folder / "plain.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "w.nested"
    )
    save_file(state, folder / "w.safetensors")
    (folder / "w.ckpt").write_bytes(with_crc(checkpoint({**theirs, **moments}, piece_bytes=1000)))
    np.savez_compressed(folder / "w.npz", **{key: value.numpy() for key, value in theirs.items()})
    return {"plain": folder / "plain.pt", **{path.suffix[1:]: path for path in folder.glob("w.*")}}


def test_weights_of_a_file(trained: Trained) -> None:
    """Breaks if --weights, --variant, --num-classes, --input-size or --batch are ignored, or random weights unmentioned."""
    assert (trained.result.exit_code, trained.result.stderr) == (0, "")
    report = json.loads(trained.result.stdout)
    assert report["file_bytes"] == trained.onnx.stat().st_size
    assert (report["input_shape"], report["batch"], report["weights"]) == ([1, 12, 12], 2, "plain.pt")
    assert (report["margin"], report["zero_weights"], report["ignored"]) == (None, {}, [])
    metadata = metadata_of(trained.onnx)
    assert (metadata["variant"], metadata["weights"]) == ("released", "plain.pt") and "calibration" not in metadata
    reference = open_reference("onnxruntime", trained.onnx)
    assert (reference.batch, reference.input_shape, reference.classes) == (2, (1, 12, 12), 3)


@pytest.mark.parametrize("form", ["plain", "nested", "safetensors", "ckpt", "npz"])
def test_every_form_leads_back_to_pytorch(trained: Trained, form: str) -> None:
    """Breaks if the form in which weights come changes the model or its metadata, or `validate` cannot take that form."""
    images = np.random.default_rng(0).standard_normal((2, 1, 12, 12), dtype=np.float32)
    rebuilt = open_reference("torch", trained.onnx, trained.files[form])
    with torch.no_grad():
        np.testing.assert_array_equal(rebuilt.run(images), trained.model(torch.from_numpy(images)).numpy())
    built = build("bimlp_tiny", variant="released", num_classes=3, input_size=12, weights=trained.files[form])
    assert {**built.metadata, "bnn_deploy.weights": "plain.pt"} == {
        f"bnn_deploy.{key}": value for key, value in metadata_of(trained.onnx).items() if key != "counts_biases"
    }
    # The hash in the metadata is of the values; the file is made from the state, which must be the same in order and type.
    state = built.module.state_dict()
    assert list(state) == list(trained.model.state_dict())
    for name, tensor in trained.model.state_dict().items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor)
    assert built.checkpoint is not None and built.checkpoint.zero_weights == {}


def test_mindspore_weights_give_the_same_file(trained: Trained, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if the ONNX file differs in anything but the name of the weights' file, or training state is unmentioned."""
    result = invoke("export", "bimlp_tiny", "-o", tmp_path / "x.onnx", "--weights", trained.files["ckpt"], *OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert "moments.head.weight" in json.loads(result.stdout)["ignored"] and "was not used: moments." in result.stderr
    contents = []
    for path, name in [(trained.onnx, "plain.pt"), (tmp_path / "x.onnx", "w.ckpt")]:
        loaded = onnx.load(path)
        entry = next(item for item in loaded.metadata_props if item.key == "bnn_deploy.weights")
        assert entry.value == name
        entry.value = ""
        contents.append(loaded.SerializeToString(deterministic=True))
    assert contents[0] == contents[1]


def test_zero_weights_are_reported(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if weights of exactly 0 get a sign that the user did not choose, or the choice cannot be validated later."""
    monkeypatch.setattr(
        "bnn_deploy.export.export_model.export_model", lambda module, path, **rest: Path(path).write_text("onnx")
    )
    model, _ = seeded_model("bimlp_tiny", seed=5, variant="released")
    model.state_dict()["network.0.0.attn.fc_h.weight"][0, :2] = 0.0
    path = weights_in_every_form(tmp_path, dict(model.state_dict()))["npz"]
    arguments = ("export", "bimlp_tiny", "--variant", "released", "-o", tmp_path / "x.onnx", "--weights", path)
    refused = invoke(*arguments)
    assert refused.exit_code == 2 and "2 in network.0.0.attn.fc_h" in refused.stderr
    assert "--zero-weights -1" in refused.stderr and not (tmp_path / "x.onnx").exists()
    result = invoke(*arguments, "--zero-weights", "-1", "--format", "json")
    assert json.loads(result.stdout)["zero_weights"] == {"network.0.0.attn.fc_h": 2}
    assert "taken as -1: 2 in network.0.0.attn.fc_h." in result.stderr
    built = build("bimlp_tiny", variant="released", weights=path, zero_weights="-1")
    rebuilt = rebuild(built.metadata, path, tmp_path / "x.onnx", (1, 8, 8), 10)
    assert torch.equal(rebuilt.module.network[0][0].attn.fc_h.binary_weight()[0, :2], -torch.ones(2, 1, 1))


def test_mindspore_names_suggest_the_released_code(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if the published weights are taken for the paper's model, whose names are the same, without a word."""
    monkeypatch.setattr(
        "bnn_deploy.export.export_model.export_model", lambda module, path, **rest: Path(path).write_text("onnx")
    )
    model, _ = seeded_model("bimlp_tiny", seed=5, variant="paper")
    path = weights_in_every_form(tmp_path, dict(model.state_dict()))["npz"]
    arguments = ("export", "bimlp_tiny", "-o", tmp_path / "x.onnx", "--weights", path)
    assert "--variant released builds that" in invoke(*arguments).stderr
    assert invoke(*arguments, "--variant", "paper").stderr == ""


def test_random_weights_are_announced(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a user could take random weights for trained ones, or is not told their margin."""
    # The file itself is the subject of other tests, and takes seconds.
    monkeypatch.setattr(
        "bnn_deploy.export.export_model.export_model", lambda module, path, **rest: Path(path).write_text("onnx")
    )
    result = invoke("export", "bimlp_tiny", "-o", tmp_path / "x.onnx", "--seed", 3, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "random weights" in result.stderr and "--seed 3" in result.stderr
    margin = json.loads(result.stdout)["margin"]
    assert margin["relative"] > 0 and f"{margin['relative']:.1e}" in result.stderr and margin["layer"] in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "'resnet' is not one of"),
        (["bimlp_tiny", "--batch", "0"], "neither a number from 1 to 4096 nor 'dynamic'"),
        (["bimlp_tiny", "--batch", "many"], "neither a number"),
        (["bimlp_tiny", "--seed", "-1"], "-1"),
        (["bcdnet_tiny", "--variant", "released"], "has no variant 'released'"),
        (["bcdnet_tiny", "--input-size", "33"], "33x33 do not fit the model"),
        (["bimlp_tiny", "--num-classes", "2000000"], "2000000 classes"),
        (["bimlp_tiny", "--weights", "missing.pt"], "missing.pt"),
        (["bimlp_tiny", "--weights", "text.pt"], "text.pt"),
        (["bimlp_tiny", "--weights", "other.pt"], "do not fit"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if nonsense is exported, or refused without a sentence, or something is left behind."""
    monkeypatch.chdir(tmp_path)
    Path("text.pt").write_text("weights")
    torch.save({"weight": torch.zeros(3)}, "other.pt")
    before = sorted(tmp_path.iterdir())
    result = invoke("export", *arguments, "-o", "x.onnx")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.splitlines()[0].startswith("error: ") and message in result.stderr.splitlines()[0]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("output", "message"), [("no/x.onnx", "does not exist; make it first"), (".", "is a folder")])
def test_output_is_checked_first(output: str, message: str, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a mistyped output is found only after the long work."""
    result = invoke("export", "bimlp_tiny", "-o", tmp_path / output)
    assert result.exit_code == 2 and message in result.stderr
