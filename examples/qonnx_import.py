"""A network quantised with Brevitas, on bits: what Brevitas exports as QONNX is compiled as it is.

    pip install brevitas
    python examples/qonnx_import.py [FOLDER]

It trains a small binary MLP on scikit-learn's digits, exports QONNX, and lets bnn-deploy import, compile and compare it with
onnxruntime. FOLDER (qonnx_import) gets the files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.export import export_qonnx
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from own_network import run_commands, train
from torch import nn

from bnn_deploy.data.digits import load_digits_split


def binary_linear(inputs: int, outputs: int) -> nn.Sequential:
    """Sign, binary layer, batch normalisation: as Brevitas writes them."""
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst),
        qnn.QuantLinear(inputs, outputs, bias=False, weight_quant=SignedBinaryWeightPerTensorConst),
        nn.BatchNorm1d(outputs),
    )


def network() -> nn.Module:
    """(N, 1, 8, 8) to (N, 10). The first normalisation centres the pixels, so that their signs say something."""
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), binary_linear(64, 256), binary_linear(256, 10))


def main(folder: Path) -> int:
    """Exit status 0 when the bundle classifies every test image as onnxruntime does."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = network()
    train_images, train_labels, images, labels = load_digits_split()
    train(model, torch.from_numpy(train_images), torch.from_numpy(train_labels))
    with torch.no_grad():
        right = model(torch.from_numpy(images)).argmax(dim=1).numpy() == labels
    print(f"test accuracy in Brevitas: {right.mean():.2%}", flush=True)
    np.savez(folder / "digits_test.npz", x=images, y=labels)
    export_qonnx(model, torch.from_numpy(images[:1]), export_path=str(folder / "brevitas.onnx"), verbose=False)
    return run_commands(
        folder,
        ("import", "brevitas.onnx", "-o", "imported.onnx", "--explain"),
        ("compile", "imported.onnx", "--target", "host", "--batch", "1", "-o", "imported_host"),
        ("validate", "imported.onnx", "--bundle", "imported_host", "--data", "digits_test.npz"),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "qonnx_import")))
