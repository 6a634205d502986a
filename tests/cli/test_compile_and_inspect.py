"""``compile`` and ``inspect``: what they print of good files. Bad ones are in test_bad_input.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Invoke = Callable[..., Result]

KEYS = ("bops", "flops", "ops", "binary_params", "real_params")


def test_compile_reports_and_dumps(arm_compilation: tuple[Path, Result]) -> None:
    """Breaks if --dump-ir or --batch is ignored, or what is printed differs from what was written."""
    folder, result = arm_compilation
    bundle = folder / "bundle"
    report = json.loads(result.stdout)
    assert (report["target"], report["architecture"], report["batch"]) == ("rpi4", "arm64", 3)
    assert report["files"] == {name: (bundle / name).stat().st_size for name in report["files"]}
    assert report["file_bytes"] == sum(report["files"].values())
    assert json.loads((bundle / "manifest.json").read_text())["inputs"][0]["shape"] == [3, 1, 8, 8]
    assert len(list((folder / "ir").iterdir())) > 5
    assert sorted(entry.name for entry in folder.iterdir()) == ["bundle", "ir"]


def test_inspect_model(tiny_onnx: Path, invoke: Invoke) -> None:
    """Breaks if the totals are not the sums of the layers, or a layer loses its name."""
    report = json.loads(invoke("inspect", tiny_onnx, "--format", "json").stdout)
    layers = report["layers"]
    assert report["bops"] == sum(layer["bops"] for layer in layers) > 0
    assert report["flops"] == sum(layer["flops"] for layer in layers) > 0
    assert report["ops"] == report["bops"] / 64 + report["flops"]
    assert report["binary_params"] == sum(layer["binary_params"] for layer in layers) > 0
    assert report["file_bytes"] == tiny_onnx.stat().st_size
    assert "network.0.0.attn.fc_h" in [layer["name"] for layer in layers]
    assert report["metadata"]["bnn_deploy.model"] == "bimlp_tiny"
    text = invoke("inspect", tiny_onnx).stdout
    assert f"{report['bops']:,}" in text and "network.0.0.attn.fc_h " in text


def test_inspect_bundle(tiny_onnx: Path, tiny_bundle: Path, invoke: Invoke) -> None:
    """Breaks if a bundle does not count as the model that it was compiled from, or hides its sizes."""
    model = json.loads(invoke("inspect", tiny_onnx, "--format", "json").stdout)
    result = invoke("inspect", tiny_bundle, "--format", "json")
    assert result.exit_code == 0, result.stderr
    bundle = json.loads(result.stdout)
    assert {key: bundle[key] for key in KEYS} == {key: model[key] for key in KEYS}
    assert bundle["layers"] == model["layers"]
    assert bundle["file_bytes"] == (tiny_bundle / "model.so").stat().st_size
    assert bundle["inputs"][0]["shape"] == [2, 1, 8, 8] and bundle["steps"] and bundle["arena_bytes"] > 0
    assert bundle["peak_bytes"] == bundle["weights_bytes"] + bundle["arena_bytes"] + bundle["workspace_bytes"]
    text = invoke("inspect", tiny_bundle).stdout
    assert "kernel calls\n" in text and "for each thread" in text


def test_kernel_sets_are_told(tiny_onnx: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if nobody can see that a bundle for arm64 suits in-order cores, or if a preset for one board claims to."""
    compiled = invoke("compile", tiny_onnx, "--target", "arm64", "-o", tmp_path / "B")
    assert compiled.exit_code == 0, compiled.stderr
    assert ", for out-of-order and for in-order cores\n" in invoke("inspect", tmp_path / "B").stdout
    report = json.loads(invoke("inspect", tmp_path / "B", "--format", "json").stdout)
    assert report["kernel_sets"] == ["out-of-order", "in-order"]
    targets = json.loads(invoke("targets", "--format", "json").stdout)["targets"]
    sets = {row["name"]: [entry["mcpu"] for entry in row["kernel_sets"]] for row in targets}
    assert sets["arm64"] == ["cortex-a72", "cortex-a53"] and sets["rpi3"] == []
