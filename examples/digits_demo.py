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
import torch

from bnn_deploy.models.digits import load_digits_split, train_digits
from bnn_deploy.models.registry import build_model

FOLDER = Path("demo")
COMMAND = Path(sysconfig.get_path("scripts")) / "bnn-deploy"
EPOCHS = 40


def main() -> int:
    """Exit status 0 when every deployed model classifies the test split as PyTorch does."""
    FOLDER.mkdir(exist_ok=True)
    accuracy = _train()
    _bnn_deploy("export", "bimlp_tiny", "--weights", "bimlp_tiny.pt", "-o", "bimlp_tiny.onnx")
    rows = [("PyTorch", accuracy, None, _bytes("bimlp_tiny.pt"))]
    for target, device in (("host", "local"), ("arm64", "qemu")):
        bundle = f"bimlp_tiny_{target}"
        _bnn_deploy("compile", "bimlp_tiny.onnx", "--target", target, "-o", bundle)
        if device == "qemu" and shutil.which("qemu-aarch64") is None:
            print("qemu-aarch64 is not installed (Debian: apt-get install qemu-user): the arm64 bundle was built, not run.")
            rows.append((f"{target} bundle, not run", None, None, _bytes(f"{bundle}/model.so")))
            continue
        report = _validate(bundle, device)
        if len(rows) == 1:
            against = _validate(bundle, device, "--reference", "onnxruntime")
            rows.append(("onnxruntime", against["reference_top1"], None, _bytes("bimlp_tiny.onnx")))
        label = f"{target} bundle" + (" (emulated)" if device == "qemu" else "")
        rows.append((label, report["bundle_top1"], report["top1_agreement"], _bytes(f"{bundle}/model.so")))
    _print_table(rows)
    return 0 if all(agreement in (None, 1.0) for _, _, agreement, _ in rows) else 1


def _train() -> float:
    torch.manual_seed(0)
    model = build_model("bimlp_tiny")
    print(f"Training bimlp_tiny on scikit-learn's digits, {EPOCHS} epochs ...", flush=True)
    accuracy = train_digits(model, epochs=EPOCHS, progress=_show_epoch)
    torch.save(model.state_dict(), FOLDER / "bimlp_tiny.pt")
    _, _, images, labels = load_digits_split()
    np.savez(FOLDER / "digits_test.npz", x=images, y=labels)
    return accuracy


def _show_epoch(epoch: int, epochs: int, loss: float) -> None:
    if epoch % 10 == 0:
        print(f"  epoch {epoch}/{epochs}, training loss {loss:.3f}", flush=True)


def _validate(bundle: str, device: str, *reference: str) -> dict:
    arguments = ["validate", "bimlp_tiny.onnx", "--bundle", bundle, "--data", "digits_test.npz", "--device", device]
    reference = reference or ("--reference", "torch", "--weights", "bimlp_tiny.pt")
    return json.loads(_bnn_deploy(*arguments, *reference, "--format", "json"))


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
