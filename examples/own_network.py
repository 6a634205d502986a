"""Your own binary network in plain PyTorch, on bits: nothing of the network below knows bnn-deploy.

    python examples/own_network.py [FOLDER]

It trains a small binary CNN on scikit-learn's digits, exports it with torch.onnx.export, lets bnn-deploy find the binary
layers, compiles for this machine, and compares with onnxruntime on the exported file. FOLDER (own_network) gets the files.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnn_deploy.data.digits import load_digits_split

COMMAND = Path(sysconfig.get_path("scripts")) / "bnn-deploy"
EPOCHS = 10
BATCH = 64


class Sign(nn.Module):
    """torch.sign with a straight-through estimator: the gradient is that of clamp, whose value cancels."""

    def forward(self, x: Tensor) -> Tensor:
        clipped = x.clamp(-1, 1)
        return torch.sign(x).detach() - clipped.detach() + clipped


class BinaryConv(nn.Conv2d):
    """A convolution whose weights are computed from real ones in every call: sign times mean magnitude."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        clipped = self.weight.clamp(-1, 1)
        weight = (scale * torch.sign(self.weight)).detach() - clipped.detach() + clipped
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


def binary_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Sign, binary 3x3 convolution, batch normalisation, PReLU."""
    convolution = BinaryConv(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(Sign(), convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def network() -> nn.Module:
    """(N, 1, 8, 8) to (N, 10); first and last layer are real-valued, as usual."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        binary_block(32, 64, stride=2),
        binary_block(64, 128, stride=2),
        nn.Flatten(),
        nn.Linear(128 * 2 * 2, 10),
    )


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Plain PyTorch: AdamW, a cosine schedule, cross entropy; the model is left in evaluation mode."""
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images))[: batches * BATCH].reshape(batches, BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def run_commands(folder: Path, *commands: tuple[str, ...]) -> int:
    """Run commands as typed in ``folder``, until one fails; returns the last one's exit status."""
    for arguments in commands:
        print("$ bnn-deploy", *arguments, flush=True)
        status = subprocess.run([COMMAND, *arguments], cwd=folder, check=False).returncode
        if status:
            return status
    return 0


def main(folder: Path) -> int:
    """Exit status 0 when the bundle classifies every test image as onnxruntime does."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = network()
    print(f"Training a binary CNN on scikit-learn's digits, {EPOCHS} epochs ...", flush=True)
    train_images, train_labels, images, labels = load_digits_split()
    train(model, torch.from_numpy(train_images), torch.from_numpy(train_labels))
    with torch.no_grad():
        right = model(torch.from_numpy(images)).argmax(dim=1).numpy() == labels
    print(f"test accuracy in PyTorch: {right.mean():.2%}", flush=True)
    np.savez(folder / "digits_test.npz", x=images, y=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter warns about itself
        torch.onnx.export(model, (torch.from_numpy(images[:1]),), str(folder / "mine.onnx"), dynamo=True, verbose=False)
    return run_commands(
        folder,
        ("compile", "mine.onnx", "--target", "host", "-o", "mine_host", "--explain"),
        ("validate", "mine.onnx", "--bundle", "mine_host", "--data", "digits_test.npz"),
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "own_network")))
