"""Whole models for the GPU of this machine: exported with calibrated weights, compiled for that GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.compiler import compile_model
from bnn_deploy.export.export_model import export_model
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.calibration import seeded_model
from bnn_deploy.models.registry import input_shape
from bnn_deploy.runtime.loader import Model
from tests.test_zoo import ROUNDING, SAMPLES


@dataclass(frozen=True)
class Exported:
    """A file, the images that its weights are calibrated on (batch ``SAMPLES``), and PyTorch's float32 logits."""

    path: Path
    images: np.ndarray
    logits: np.ndarray


def exported_model(name: str, folder: Path) -> Exported:
    """Export a model of the registry; the same in every process. Its activations keep a margin above rounding errors."""
    model, report = seeded_model(name, 0, SAMPLES)
    assert report.smallest.relative > ROUNDING
    images = np.ascontiguousarray(calibration_inputs(0, SAMPLES, input_shape(name)))
    path = folder / f"{name}.onnx"
    export_model(model, path, input_shape=input_shape(name), batch=SAMPLES)
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
    return Exported(path, images, logits)


@dataclass(frozen=True)
class Ready:
    """A model with its bundle for this machine's GPU, and the logits of the bundle when nothing else runs."""

    exported: Exported
    bundle: Bundle
    alone: np.ndarray


def ready_model(name: str, folder: Path) -> Ready:
    """Export a model, compile it for the GPU that is here, and run it."""
    exported = exported_model(name, folder)
    bundle = compile_model(exported.path, "cuda", folder / "bundle", batch=SAMPLES)
    return Ready(exported, bundle, Model(bundle)(exported.images))
