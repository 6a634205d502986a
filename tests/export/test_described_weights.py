"""Weights that say what model they belong to, as `train` writes them: what `export` takes from them, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.metadata.preprocessing import Preprocessing, digits
from bnn_deploy.models.calibration import seeded_model
from bnn_deploy.references.whole_model import open_reference
from bnn_deploy.training.checkpoint import Checkpoint, Progress
from bnn_deploy.weights.weights_file import WeightsDescription, describe_weights, write_weights

Invoke = Callable[..., Result]

# Neither the model's own numbers nor, in the names, the alphabet's order.
MINE = Preprocessing(resize=12, interpolation="bilinear", crop=(12, 12), channels="grey", mean=(0.25,), std=(0.125,))
NAMES = ["pear", "apple", "fig"]
METADATA = {
    "bnn_deploy.model": "bimlp_tiny",
    "bnn_deploy.variant": "released",
    "bnn_deploy.num_classes": "3",
    "bnn_deploy.input_size": "12",
    "bnn_deploy.preprocessing": MINE.to_json(),
    "bnn_deploy.class_names": json.dumps(NAMES),
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return seeded_model("bimlp_tiny", seed=5, variant="released", num_classes=3, input_size=12)[0]


def described(path: Path, model: nn.Module, changes: Mapping[str, str | None] | None = None) -> Path:
    """The model's weights with ``METADATA``, some of them changed or (None) left out."""
    metadata = {**METADATA, **{f"bnn_deploy.{key}": value for key, value in (changes or {}).items()}}
    save_file(dict(model.state_dict()), path, {key: value for key, value in metadata.items() if value is not None})
    return path


def pictures_by_prediction(folder: Path, model: nn.Module) -> None:
    """Random grey pictures, each in the sub-folder named after the class that the model takes it for."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 12, 12), dtype=np.uint8)
    images = (pixels.astype(np.float32) / 255 - np.float32(0.25)) / np.float32(0.125)
    with torch.no_grad():
        classes = model(torch.from_numpy(images)).argmax(dim=1).tolist()
    assert len(set(classes)) > 1
    for number, (picture, found) in enumerate(zip(pixels[:, 0], classes, strict=True)):
        (folder / NAMES[found]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / NAMES[found] / f"{number}.png")


def test_from_weights_to_labelled_pictures(model: nn.Module, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if variant, sizes, preprocessing or class names are lost on the way, or PyTorch's model is another one."""
    weights = described(tmp_path / "weights.safetensors", model)
    pictures_by_prediction(tmp_path / "pictures", model)
    path = tmp_path / "x.onnx"
    exported = invoke("export", "bimlp_tiny", "--weights", weights, "-o", path)
    assert (exported.exit_code, exported.stderr) == (0, "")
    metadata = {item.key: item.value for item in onnx.load(path).metadata_props}
    assert METADATA.items() <= metadata.items()
    assert "classes: 3 (pear, apple, fig)" in invoke("inspect", path).stdout
    images, labels = next(open_dataset(tmp_path / "pictures", (1, 12, 12), 3, metadata).batches(24))
    assert labels is not None
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(expected.argmax(axis=1), labels)
    np.testing.assert_array_equal(open_reference("torch", path, weights).run(images), expected)


def test_what_train_writes_is_read(model: nn.Module, tmp_path: Path) -> None:
    """Breaks if writer and reader of the metadata disagree, or the two ways to write the file differ in its weights."""
    written = WeightsDescription("bimlp_tiny", "released", MINE, tuple(NAMES), {"step": "binary", "accuracy": 0.5})
    write_weights(tmp_path / "weights.safetensors", dict(model.state_dict()), written)
    assert describe_weights(tmp_path / "weights.safetensors") == written
    theirs, ours = load_file(tmp_path / "weights.safetensors"), load_file(described(tmp_path / "x.safetensors", model))
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bcdnet_tiny"], "holds weights of bimlp_tiny, not of bcdnet_tiny; export bimlp_tiny"),
        (["bimlp_tiny", "--variant", "paper"], "was trained with --variant released, but --variant paper was given"),
        (["bimlp_tiny", "--num-classes", "10"], "was trained with --num-classes 3, but --num-classes 10 was given"),
        (["bimlp_tiny", "--input-size", "8"], "was trained with --input-size 12, but --input-size 8 was given"),
    ],
)
def test_contradictions(arguments: list[str], message: str, model: nn.Module, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if an option overrules what the network was trained with, or is ignored without a word."""
    weights = described(tmp_path / "weights.safetensors", model)
    result = invoke("export", *arguments, "--weights", weights, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2 and result.stdout == "" and not (tmp_path / "x.onnx").exists()
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr and str(weights) in result.stderr


@pytest.mark.parametrize("part", ["activations", "weights"])
def test_weights_of_an_earlier_step(part: str, model: nn.Module, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if the float teacher of a run, whose weights have the same names, is deployed as if it were the network."""
    training = {"step": "float", "activations": "binary", "weights": "binary", part: "real"}
    weights = described(tmp_path / "float.safetensors", model, {"training": json.dumps(training)})
    result = invoke("export", "bimlp_tiny", "--weights", weights, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2 and not (tmp_path / "x.onnx").exists()
    assert "trained with real activations or weights" in result.stderr and str(weights) in result.stderr


def test_the_same_options_may_be_given(
    model: nn.Module, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a script that says what the file says is refused."""
    monkeypatch.setattr(
        "bnn_deploy.export.export_model.export_model", lambda module, path, **rest: Path(path).write_text("onnx")
    )
    weights = described(tmp_path / "weights.safetensors", model)
    options = ("--variant", "released", "--num-classes", 3, "--input-size", 12)
    assert invoke("export", "bimlp_tiny", "--weights", weights, *options, "-o", tmp_path / "x.onnx").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet\x1b[2J"}, "none of the models that can be exported"),
        ({"model": "resnet18"}, "none of the models that can be exported"),
        ({"training": "[]"}, "training is no JSON object"),
        ({"training": "[" * 100_000}, "training is no JSON object"),
        ({"variant": "other"}, "'other', which bimlp_tiny does not have"),
        ({"variant": None}, "'', which bimlp_tiny does not have"),
        ({"num_classes": "3 "}, "not a number from 1 to"),
        ({"num_classes": "99999999999999"}, "not a number from 1 to"),
        ({"num_classes": None}, "num_classes is missing"),
        ({"input_size": "0"}, "not a number from 1 to"),
        ({"input_size": "²"}, "not a number from 1 to"),
        ({"input_size": "8"}, "for images (1, 12, 12), not (1, 8, 8)"),
        ({"preprocessing": None}, "preprocessing is missing"),
        ({"preprocessing": digits(8).to_json()}, "for images (1, 8, 8), not (1, 12, 12)"),
        ({"preprocessing": "{" * 3000}, "bnn_deploy.preprocessing cannot be used"),
        ({"class_names": None}, "missing for 3 classes"),
        ({"class_names": '["a", "b"]'}, "2 names for 3 classes"),
        ({"class_names": '["a", "b", "a"]'}, "not a JSON list of different names"),
        ({"class_names": json.dumps(["a", "b", "c" * 300])}, "not a JSON list of different names"),
        ({"num_classes": "4", "class_names": '["a", "b", "c", "d"]'}, "do not fit BiMLP"),
    ],
)
def test_damaged_metadata(
    changes: dict[str, str | None], message: str, model: nn.Module, tmp_path: Path, invoke: Invoke
) -> None:
    """Breaks if something that the file merely claims is believed, or ends in a stack trace."""
    weights = described(tmp_path / "weights.safetensors", model, changes)
    result = invoke("export", "bimlp_tiny", "--weights", weights, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2 and result.stdout == "" and not (tmp_path / "x.onnx").exists()
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and message in lines[0] and str(weights) in lines[0] and "\x1b" not in lines[0]


def test_a_checkpoint(tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if somebody who takes the wrong file of a run's folder is not told which one is the right one."""
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint({}, {}, Progress()).write(path, {"w": torch.zeros(1)})
    result = invoke("export", "bimlp_tiny", "--weights", path, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 2 and f"{path}: is the checkpoint of a training run" in result.stderr


def test_a_damaged_file(tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a cut or missing file of weights is not named."""
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    for name in ("cut", "missing"):
        result = invoke(
            "export", "bimlp_tiny", "--weights", tmp_path / f"{name}.safetensors", "-o", tmp_path / "x.onnx"
        )
        assert result.exit_code == 2 and f"{name}.safetensors" in result.stderr
        assert len(result.stderr.splitlines()) == 1
