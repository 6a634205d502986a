"""``run``: images of a .npy file in, logits out, and nothing but a sentence for anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from bnn_deploy.references.whole_model import open_reference

Invoke = Callable[..., Result]

IMAGES = np.random.default_rng(1).standard_normal((4, 1, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_runs(threads: int, tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if the file written does not hold the model's logits, in order, for several batches or threads."""
    np.save(tmp_path / "x.npy", IMAGES)
    output = tmp_path / "y"
    options = ("--threads", threads, "--format", "json")
    result = invoke("run", tiny_bundle, "--input", tmp_path / "x.npy", "--output", output, *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["shape"] == [4, 10]
    logits = np.load(output)
    assert logits.dtype == np.float32
    # Logits of order 1 after sums of 64 products in another order: 64 * 2**-24 = 4e-6, and some layers of the same.
    # These images keep no margin, but seed 1 was chosen so that no sign flips.
    np.testing.assert_allclose(logits, open_reference("onnxruntime", tiny_onnx).run(IMAGES), atol=1e-4)


BAD_INPUTS = {
    "missing.npy": (None, "no such file"),
    "empty.npy": (b"", "not a numpy array file"),
    "text.npy": (b"1, 2, 3", "not a numpy array file"),
    "double.npy": (IMAGES.astype(np.float64), "expected float32"),
    "shape.npy": (IMAGES.reshape(4, 8, 8), "expected float32 of shape (N, 1, 8, 8), found float32 (4, 8, 8)"),
    "none.npy": (IMAGES[:0], "holds no image"),
    "odd.npy": (IMAGES[:3], "multiple"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_images(name: str, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if images that do not fit crash the kernels, or an output appears for them."""
    content, message = BAD_INPUTS[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    result = invoke("run", tiny_bundle, "--input", tmp_path / name, "--output", tmp_path / "y.npy")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and message in result.stderr
    assert not (tmp_path / "y.npy").exists()


def flip_a_byte(bundle: Path) -> None:
    content = bytearray((bundle / "model.so").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.so").write_bytes(content)


def from_the_future(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))


BAD_BUNDLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "altered": (flip_a_byte, "altered"),
    "truncated": (lambda bundle: (bundle / "model.so").write_bytes(b"x"), "truncated"),
    "incomplete": (lambda bundle: (bundle / "model.so").unlink(), "missing"),
    "newer": (from_the_future, "format version 99"),
    "text": (lambda bundle: (bundle / "manifest.json").write_text("no JSON"), "is not JSON"),
    "gone": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
@pytest.mark.parametrize("command", ["run", "profile", "inspect", "validate"])
def test_bad_bundle(
    name: str, command: str, tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path, invoke: Invoke
) -> None:
    """Breaks if a command runs or describes a bundle that is not what was written."""
    damage, message = BAD_BUNDLES[name]
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    damage(bundle)
    np.save(tmp_path / "x.npy", IMAGES)
    arguments = {
        "run": ["run", bundle, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy"],
        "profile": ["profile", bundle],
        "inspect": ["inspect", bundle],
        "validate": ["validate", tiny_onnx, "--bundle", bundle],
    }[command]
    result = invoke(*arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and message in result.stderr
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(("device", "message"), [("moon", "no device 'moon'"), ("qemu", "is for x86_64")])
def test_wrong_device(device: str, message: str, tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a device that does not exist or cannot run the bundle is not refused by its name."""
    if device == "qemu" and json.loads((tiny_bundle / "manifest.json").read_text())["architecture"] == "arm64":
        pytest.skip("on an arm64 machine qemu can run the bundle")
    np.save(tmp_path / "x.npy", IMAGES)
    options = ("--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--device", device)
    result = invoke("run", tiny_bundle, *options)
    assert result.exit_code == 2 and message in result.stderr and not (tmp_path / "y.npy").exists()


def test_output_cannot_be_written(tiny_bundle: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Breaks if a missing output folder shows only after the run, or as a traceback."""
    np.save(tmp_path / "x.npy", IMAGES)
    result = invoke("run", tiny_bundle, "--input", tmp_path / "x.npy", "--output", tmp_path / "no" / "y.npy")
    assert result.exit_code == 2 and "does not exist; make it first" in result.stderr
