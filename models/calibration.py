"""Seeded random weights whose activations keep a margin from their thresholds on known inputs.

Random weights alone cannot show parity: two correct float32 implementations sum in different orders, a value within
that rounding of its threshold gives another bit, and one bit changes everything after it. So each threshold is moved
into a gap between the values that reach it for the calibration inputs. On exactly those inputs no correct
implementation can flip a bit, because the gaps are far wider than rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bnn_deploy.errors import InputError
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.gaps import gap_shift
from bnn_deploy.models.layers import BinaryActivation, TernaryActivation
from bnn_deploy.models.random_weights import randomise
from bnn_deploy.models.registry import build_model, input_shape

Activation = BinaryActivation | TernaryActivation

# Wanted distance of every value from its threshold, in units of the layer's root mean square. Float32 moves the values
# near a threshold by at most 1/50 of the distance this leaves (float32 against float64, BiMLP-M at 224x224, the worst of
# all models; the others stay below 1/90, BCDNet and ReActNet below 1/390).
WANTED_MARGIN = 1.5e-3


@dataclass(frozen=True)
class LayerMargin:
    """Smallest distance of a value from its threshold at one binarisation.

    ``absolute`` is in the activation's own unit; ``relative`` is in units of the root mean square of its input.
    """

    name: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class CalibrationReport:
    """Margins of every binarisation in order of execution, measured after calibration on the calibration inputs.

    ``predictions`` holds the class of each input, ``logit_margin`` the smallest lead of a first class over the second.
    """

    layers: tuple[LayerMargin, ...]
    predictions: tuple[int, ...]
    logit_margin: float

    @property
    def smallest(self) -> LayerMargin:
        """The layer with the smallest relative margin."""
        return min(self.layers, key=lambda layer: layer.relative)


def seeded_model(
    name: str,
    seed: int = 0,
    samples: int = 2,
    *,
    variant: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
) -> tuple[nn.Module, CalibrationReport]:
    """Build a model with seeded random weights, calibrated on ``calibration_inputs(seed, samples, input_shape(...))``.

    Raises:
        InputError: as ``build_model`` and ``calibration_inputs``.
    """
    model = build_model(name, variant=variant, num_classes=num_classes, input_size=input_size)
    inputs = calibration_inputs(seed, samples, input_shape(name, input_size))
    randomise(model, seed)
    return model, calibrate(model, inputs)


@torch.no_grad()
def calibrate(model: nn.Module, inputs: NDArray[np.float32]) -> CalibrationReport:
    """Fit a model's statistics and thresholds to ``inputs`` (N, C, H, W), leaving it in evaluation mode.

    In one forward pass, layer after layer: BN's running statistics become those of its input, each bias directly before
    an activation is shifted so that the activation's boundaries stand in gaps between values, and the classifier's
    logits are centred and scaled over the inputs so that these get different classes. A second pass measures.

    Raises:
        InputError: an activation that has no per-channel bias directly before it.
    """
    model.eval()
    images = torch.from_numpy(inputs)
    thresholds = _find_thresholds(model, images[:1])
    heads = [child for child in model.children() if isinstance(child, nn.Linear)]
    handles = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(_fit_statistics))
        elif module in thresholds:
            handles.append(module.register_forward_hook(_threshold_hook(thresholds[module])))
        elif module in heads:
            handles.append(module.register_forward_hook(_fit_logits))
    _run(model, images, handles)
    return _measure(model, images)


def _run(model: nn.Module, images: Tensor, handles: list[Any]) -> Tensor:
    try:
        return model(images)
    finally:
        for handle in handles:
            handle.remove()


def _find_thresholds(model: nn.Module, images: Tensor) -> dict[nn.Module, Activation]:
    """The module with a ``shift`` method whose output each activation reads, found by following tensors once."""
    found: dict[nn.Module, Activation] = {}

    def mark(module: nn.Module, _: Any, output: Any) -> None:
        cast(Any, _main(output)).shifted_by = module

    def find(name: str, activation: Activation, value: Tensor) -> None:
        source = getattr(value, "shifted_by", None)
        if source is None:
            raise InputError(
                f"The activation {name} has no learnable bias directly before it, so it cannot be given a margin; "
                "put a LearnableBias there."
            )
        found[source] = activation

    handles = []
    for name, module in model.named_modules():
        if hasattr(module, "shift"):
            handles.append(module.register_forward_hook(mark))
        elif isinstance(module, Activation):
            handles.append(module.register_forward_pre_hook(lambda m, args, name=name: find(name, m, args[0])))
    _run(model, images, handles)
    return found


def _main(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _fit_statistics(module: Any, args: tuple[Tensor]) -> None:
    variance, mean = torch.var_mean(args[0], dim=(0, 2, 3), correction=0)
    module.running_mean.copy_(mean)
    # A deviation far below the mean, as of two pooled values, would let BN magnify rounding: at most 4.5 times here.
    module.running_var.copy_(variance + 0.05 * mean.square())


def _threshold_hook(activation: Activation) -> Any:
    def fit(module: Any, _: Any, output: Any) -> Any:
        value = _main(output)
        margin = WANTED_MARGIN * float(value.square().mean().sqrt())
        rows = value.transpose(0, 1).flatten(1).numpy()
        shift = torch.from_numpy(gap_shift(rows, activation.boundaries, margin))
        module.shift(shift)
        shifted = value + shift.reshape(1, -1, 1, 1)
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    return fit


def _fit_logits(module: nn.Linear, _: Any, logits: Tensor) -> Tensor | None:
    if logits.shape[0] < 2:
        return None
    mean = logits.mean(dim=0)
    # Scaling magnifies rounding with it, hence the bound.
    factor = (1 / float((logits - mean).std().clamp(min=1e-6))) if logits.numel() > 2 else 1.0
    factor = min(factor, 10.0)
    module.weight *= factor
    module.bias.copy_((module.bias - mean) * factor)
    return (logits - mean) * factor


def _measure(model: nn.Module, images: Tensor) -> CalibrationReport:
    layers: list[LayerMargin] = []

    def record(name: str, activation: Activation, value: Tensor) -> None:
        absolute = min(float((value - boundary).abs().min()) for boundary in activation.boundaries)
        layers.append(LayerMargin(name, absolute, absolute / float(value.square().mean().sqrt())))

    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: record(name, m, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, Activation)
    ]
    logits = _run(model, images, handles)
    leaders = logits.topk(min(2, logits.shape[1]), dim=1).values
    lead = float((leaders[:, 0] - leaders[:, -1]).min())
    return CalibrationReport(tuple(layers), tuple(logits.argmax(dim=1).tolist()), lead)
