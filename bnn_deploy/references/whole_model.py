"""The logits that a bundle is compared with: its ONNX file in onnxruntime, or the PyTorch model that was exported.

A file from elsewhere is run as it is, not as what the front end makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from bnn_deploy.data.dataset import Batch, Dataset, random_inputs
from bnn_deploy.errors import InputError, ToolError, message_lines
from bnn_deploy.export.provenance import rebuild
from bnn_deploy.frontend import open_model
from bnn_deploy.metadata.calibration import Calibration, calibration_inputs, calibration_of
from bnn_deploy.passes.onnx.import_report import ActivationReport
from bnn_deploy.references.batches import fill_batch
from bnn_deploy.references.model_shapes import model_shapes
from bnn_deploy.references.zero_count import ZeroCounter, probes_of

REFERENCES = ("onnxruntime", "torch")
DEFAULT_RANDOM_SAMPLES = 16


@dataclass(frozen=True)
class Reference:
    """A model to compare with.

    Attributes:
        run: float32 (n, *input_shape) to float32 (n, classes).
        input_shape: shape of one image.
        classes: number of logits.
        batch: fixed batch size, 1 if any will do; with other numbers of images the last batch is filled up.
        calibration: inputs on which the model keeps a margin from its thresholds, if they are known.
        zeros: counts the values on thresholds while the model is run, if there are signs to watch.
    """

    run: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    calibration: Calibration | None
    zeros: ZeroCounter | None = None

    def default_dataset(self, samples: int | None) -> Dataset:
        """The calibration inputs if they are known, then seeded random inputs as far as ``samples`` asks for more."""
        if self.calibration is None or self.calibration.shape != self.input_shape:
            return random_inputs(self.input_shape, DEFAULT_RANDOM_SAMPLES if samples is None else samples)
        known = self.calibration.samples
        return calibration_dataset(self.calibration, known if samples is None else samples)


def open_reference(
    name: str, onnx_path: Path, weights: Path | None = None, activations: Sequence[ActivationReport] = ()
) -> Reference:
    """Prepare the reference ``name`` for the model in ``onnx_path``.

    Args:
        name: one of ``REFERENCES``.
        onnx_path: file written by export; for "onnxruntime", any file that was compiled.
        weights: the checkpoint it was exported with, for "torch".
        activations: what the compiled model makes of the file's signs; onnxruntime counts the zeros where they differ.

    Raises:
        InputError: an unknown reference, or a model with several inputs or outputs.
        ModelFileError: the file cannot be used, or does not say what PyTorch model it is.
        ToolError: onnxruntime refuses the file.
    """
    if name not in REFERENCES:
        raise InputError(f"Unknown reference {name!r}; choose one of: {', '.join(REFERENCES)}.")
    if name == "onnxruntime" and weights is not None:
        raise InputError("--weights is for --reference torch only: onnxruntime takes the weights from the ONNX file.")
    model = open_model.open_reference(onnx_path)
    metadata = {item.key: item.value for item in model.metadata_props}
    shapes = model_shapes(model, onnx_path)
    calibration = calibration_of(metadata, onnx_path)
    if name == "onnxruntime":
        probes = probes_of(model, activations)
        zeros = ZeroCounter(model, probes) if probes else None
        run = _onnxruntime(model, onnx_path, shapes.batch, zeros)
        classes = shapes.classes
        if classes is None:
            # Before there is anything to count: this image is not one of the user's.
            blank = np.zeros((max(1, shapes.batch), *shapes.image), np.float32)
            classes = _onnxruntime(model, onnx_path, shapes.batch)(blank).reshape(len(blank), -1).shape[1]
        return Reference(run, shapes.image, classes, max(1, shapes.batch), calibration, zeros)
    classes = shapes.required_classes(onnx_path)
    built = rebuild(metadata, weights, onnx_path, shapes.image, classes)
    return Reference(_torch(built.module), shapes.image, classes, 1, calibration)


def calibration_dataset(calibration: Calibration, samples: int) -> Dataset:
    """The first ``samples`` calibration inputs, continued by random inputs when that is more than there are."""
    images = calibration_inputs(calibration.seed, calibration.samples, calibration.shape)
    beyond = samples - calibration.samples
    source = f"{min(samples, calibration.samples)} calibration inputs, seed {calibration.seed}"
    rest = random_inputs(calibration.shape, max(0, beyond), calibration.seed)

    def chunks(size: int) -> Iterator[Batch]:
        yield images[:samples], None
        yield from rest.chunks(size)

    if beyond <= 0:
        return Dataset(source, samples, False, chunks)
    return Dataset(f"{source}, then {beyond} {rest.source}", samples, False, chunks, rest.note)


def _onnxruntime(
    model: ModelProto, path: Path, batch: int, zeros: ZeroCounter | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """The model for any number of images; ``batch`` is the fixed size of its batches, 0 if it takes any."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings are about optimisations
    content = (model if zeros is None else zeros.model).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:
        raise ToolError(
            f"{path}: onnxruntime cannot load it ({message_lines(error)[0]}); export the model again."
        ) from error
    name = session.get_inputs()[0].name

    def run_one(images: np.ndarray) -> np.ndarray:
        given = fill_batch(images, batch or len(images))
        try:
            output, *rest = session.run(None, {name: given})
        except Exception as error:
            raise ToolError(
                f"{path}: onnxruntime cannot run it ({message_lines(error)[0]}); export the model again."
            ) from error
        if zeros is not None:
            zeros.add(rest, len(images), len(given))
        return np.asarray(output)[: len(images)]

    def run(images: np.ndarray) -> np.ndarray:
        step = batch or len(images)
        return np.concatenate([run_one(images[start : start + step]) for start in range(0, len(images), step)])

    return run


def _torch(module: Callable[..., object]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.tensor(images)).numpy()  # type: ignore[attr-defined, no-any-return]

    return run
