"""One small network with everything that a mutation may break, and its comparison along the whole way.

PyTorch -> ONNX file under onnxruntime -> kernels compiled for this machine, executed by their plan.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from bnn_deploy.export.export_model import export_model
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, LearnableBias, RPReLU, TernaryActivation
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.passes.pipeline import lower
from bnn_deploy.targets.registry import host_target
from tests.passes.execute import run_plan

SHAPE = (3, 7, 5)
BATCH = 2
# Logits are means over 35 pixels of sums of a few numbers, then sums of 24 products: below 100 float32 operations, each with
# a relative rounding error of 2**-24, on values whose magnitudes sum up to less than 16 (asserted by the control):
# 100 * 16 * 2**-24 < 1e-4. A mutation moves some logit by more.
TOLERANCE = 1e-4
LARGEST_MAGNITUDE = 16


class ThreeValuedSign(BinaryActivation):
    """``torch.sign``, which the models here do not use and foreign files do; ``export`` writes it into the file."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sign()


class Network(nn.Module):
    """A block with roll, batch norm (negative gammas) and RPReLU, one of ternary values, one of groups, one with sign(0) = 0;
    two heads."""

    def __init__(self) -> None:
        super().__init__()
        # 40 channels: a whole word and a part of one.
        self.stem = nn.Conv2d(3, 40, 3, padding=1, bias=False)
        self.move = LearnableBias(40)
        self.sign = BinaryActivation()
        self.binary = BinaryConv2d(40, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.act = RPReLU(24)
        self.ternary = TernaryActivation()
        self.tap = BinaryConv2d(24, 24, (1, 3), padding=(0, 1), scaling="tap")
        self.last_move = LearnableBias(24)
        self.last_sign = BinaryActivation()
        self.last = BinaryConv2d(24, 24, 1, groups=4)
        self.sign_or_zero = ThreeValuedSign()
        self.side = BinaryConv2d(40, 24, 1)
        self.head = nn.Linear(24, 5)
        self.head_dist = nn.Linear(24, 5)

    def compared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the first sign, the ternary layer and the last sign read."""
        first = self.move(self.stem(x))
        second = self.act(self.norm(self.binary(torch.roll(self.sign(first), 2, 2))))
        return first, second, self.last_move(self.tap(self.ternary(second)) + second)

    def features(self, x: Tensor) -> Tensor:
        """The image that is averaged over space."""
        first, _, last = self.compared(x)
        return self.last(self.last_sign(last)) + last + self.side(self.sign_or_zero(first))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3))
        return (self.head(pooled) + self.head_dist(pooled)) / 2


@torch.no_grad()
def network() -> Network:
    """Seeded weights; the stem's numbers are quarters, so that its sums are exact and many of them exactly 0."""
    torch.manual_seed(11)
    result = Network().eval()
    result.stem.weight.copy_(torch.randint(-2, 3, result.stem.weight.shape) / 4)
    result.move.bias.copy_(torch.randint(-6, 7, result.move.bias.shape) / 4)
    norm = result.norm
    norm.weight.copy_(torch.randn(24))
    norm.bias.copy_(torch.randn(24))
    norm.running_mean.copy_(torch.randn(24))
    norm.running_var.copy_(torch.rand(24) + 0.5)
    for bias in (result.act.move1.bias, result.act.move2.bias, result.last_move.bias):
        bias.copy_(torch.randn(bias.shape) / 2)
    result.act.act.w.copy_(torch.rand(result.act.act.w.shape))
    return result


def inputs() -> np.ndarray:
    """Whole numbers, float32 (BATCH, *SHAPE)."""
    return np.random.default_rng(5).integers(-2, 3, (BATCH, *SHAPE)).astype("float32")


def pytorch() -> np.ndarray:
    """Logits of the PyTorch module."""
    with torch.no_grad():
        return network()(torch.from_numpy(inputs())).numpy()


def export(folder: Path) -> Path:
    """The network as an ONNX file."""
    path = folder / "network.onnx"
    export_model(network(), path, input_shape=SHAPE, batch=BATCH)
    model = onnx.load(path)
    (sign,) = (node for node in model.graph.node if node.name == "sign_or_zero")
    del sign.attribute[:]
    sign.attribute.append(onnx.helper.make_attribute("zero", 0))
    onnx.save(model, path)
    return path


def runtime(path: Path) -> np.ndarray:
    """Logits of plain onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs()})[0]


def compiled(path: Path, folder: Path) -> np.ndarray:
    """Logits of the kernels that the passes make for this machine."""
    target = host_target()
    model: onnx.ModelProto = load_onnx(path)
    lowered = lower(model, target, BATCH)
    return run_plan(lowered, target, inputs(), folder)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of two arrays of logits; infinite when one is not finite."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max()) if np.isfinite(found).all() else float("inf")
