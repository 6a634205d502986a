"""The whole way on real images: train a small BiMLP on handwritten digits, deploy it, and compare with PyTorch.

Run by `make demo`. It runs the same commands a user types (printed with a leading $) in the folder demo/ and ends with a
table. arm64 runs under qemu-aarch64 when that is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bnn_deploy.models.digits import load_digits_split, train_digits
from bnn_deploy.models.registry import build_model

FOLDER = Path("demo")
COMMAND = Path(sysconfig.get_path("scripts")) / "bnn-deploy"
EPOCHS = 10


def main() -> int:
    """Exit status 0 when every deployed model classifies the test split as PyTorch does."""
    FOLDER.mkdir(exist_ok=True)
    model = _train()
    _bnn_deploy("export", "bimlp_tiny", "--weights", "bimlp_tiny.pt", "-o", "bimlp_tiny.onnx")
    rows = _reference_rows(model)
    for target, device in (("host", "local"), ("arm64", "qemu")):
        bundle = f"bimlp_tiny_{target}"
        _bnn_deploy("compile", "bimlp_tiny.onnx", "--target", target, "-o", bundle)
        if device == "qemu" and shutil.which("qemu-aarch64") is None:
            print(
                "qemu-aarch64 is not installed (Debian: apt-get install qemu-user): the arm64 bundle was built, not run."
            )
            rows.append((f"{target} bundle, not run", None, None, _bytes(f"{bundle}/model.so")))
            continue
        report = _validate(bundle, device)
        label = f"{target} bundle" + (" (emulated)" if device == "qemu" else "")
        model = report["model"]
        rows.append((label, model["bundle_top1"], model["top1_agreement"], _bytes(f"{bundle}/model.so")))
    _print_table(rows)
    return 0 if all(agreement in (None, 1.0) for _, _, agreement, _ in rows) else 1


def _train() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model("bimlp_tiny")
    print(f"Training bimlp_tiny on scikit-learn's digits, {EPOCHS} epochs ...", flush=True)
    train_digits(model, epochs=EPOCHS, progress=_show_epoch)
    torch.save(model.state_dict(), FOLDER / "bimlp_tiny.pt")
    _, _, images, labels = load_digits_split()
    np.savez(FOLDER / "digits_test.npz", x=images, y=labels)
    return model


def _reference_rows(model: torch.nn.Module) -> list[tuple[str, float | None, float | None, int]]:
    """PyTorch's accuracy, and that of onnxruntime on the exported file, which needs no plug-in."""
    _, _, images, labels = load_digits_split()
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy().argmax(axis=1)
    session = onnxruntime.InferenceSession(FOLDER / "bimlp_tiny.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": images})[0].argmax(axis=1)
    return [
        ("PyTorch", float((expected == labels).mean()), None, _bytes("bimlp_tiny.pt")),
        ("onnxruntime", float((found == labels).mean()), float((found == expected).mean()), _bytes("bimlp_tiny.onnx")),
    ]


def _show_epoch(epoch: int, epochs: int, loss: float) -> None:
    if epoch % 5 == 0:
        print(f"  epoch {epoch}/{epochs}, training loss {loss:.3f}", flush=True)


def _validate(bundle: str, device: str) -> dict:
    data = ("--data", "digits_test.npz", "--reference", "torch", "--weights", "bimlp_tiny.pt")
    options = ("--device", device, "--format", "json")
    return json.loads(_bnn_deploy("validate", "bimlp_tiny.onnx", "--bundle", bundle, *data, *options))


def _bnn_deploy(*arguments: str) -> str:
    print("$ bnn-deploy", *arguments, flush=True)
    result = subprocess.run([COMMAND, *arguments], cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=False)
    # 1 is the verdict of a check; the table shows it.
    if result.returncode not in (0, 1):
        sys.exit(result.returncode)
    return result.stdout


def _bytes(name: str) -> int:
    return (FOLDER / name).stat().st_size


def _print_table(rows: list[tuple[str, float | None, float | None, int]]) -> None:
    _, _, images, _ = load_digits_split()
    print(f"\n{len(images)} test images      test accuracy   agreement with PyTorch   bytes")
    for label, accuracy, agreement, size in rows:
        shown = [f"{value:.2%}" if value is not None else "-" for value in (accuracy, agreement)]
        print(f"{label:<26} {shown[0]:>8}   {shown[1]:>20}   {size:>9,}")


if __name__ == "__main__":
    sys.exit(main())
