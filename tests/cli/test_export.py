"""``export``: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result

from bnn_deploy.references import open_reference

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


def test_weights_of_a_file(tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if --weights, --variant, --num-classes, --input-size or --batch are ignored, or random weights unmentioned."""
    import torch

    from bnn_deploy.models.calibration import seeded_model

    model, _ = seeded_model("bimlp_tiny", seed=5, variant="released", num_classes=3, input_size=12)
    torch.save(model.state_dict(), tmp_path / "trained.pt")
    path = tmp_path / "x.onnx"
    options = ("--variant", "released", "--num-classes", 3, "--input-size", 12, "--batch", 2, "--format", "json")
    result = invoke("export", "bimlp_tiny", "-o", path, "--weights", tmp_path / "trained.pt", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["file_bytes"] == path.stat().st_size
    assert (report["input_shape"], report["batch"], report["weights"]) == ([1, 12, 12], 2, "trained.pt")
    assert report["margin"] is None
    metadata = metadata_of(path)
    assert (metadata["variant"], metadata["weights"]) == ("released", "trained.pt") and "calibration" not in metadata
    reference = open_reference("onnxruntime", path)
    assert (reference.batch, reference.input_shape, reference.classes) == (2, (1, 12, 12), 3)
    images = np.random.default_rng(0).standard_normal((2, 1, 12, 12), dtype=np.float32)
    rebuilt = open_reference("torch", path, tmp_path / "trained.pt")
    with torch.no_grad():
        np.testing.assert_array_equal(rebuilt.run(images), model(torch.from_numpy(images)).numpy())


def test_random_weights_are_announced(tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a user could take random weights for trained ones, or is not told their margin."""
    # The file itself is the subject of other tests, and takes seconds.
    monkeypatch.setattr("bnn_deploy.export.export_model", lambda module, path, **rest: Path(path).write_text("onnx"))
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
    import torch

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
