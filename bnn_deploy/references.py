"""What a bundle is compared with: its ONNX file in onnxruntime, or the PyTorch model that was exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto

from bnn_deploy.datasets import Batch, Dataset, random_inputs
from bnn_deploy.errors import InputError, ToolError, message_lines
from bnn_deploy.onnx_file import load_onnx, require_binary
from bnn_deploy.recipe import Calibration, calibration_of, rebuild

REFERENCES = ("onnxruntime", "torch")
DEFAULT_RANDOM_SAMPLES = 16


@dataclass(frozen=True)
class Reference:
    """A model to compare with.

    Attributes:
        run: float32 (n, *input_shape) to float32 (n, classes); n must be a multiple of ``batch``.
        input_shape: shape of one image.
        classes: number of logits.
        batch: fixed batch size, 1 if any will do.
        calibration: inputs on which the model keeps a margin from its thresholds, if they are known.
    """

    run: Callable[[np.ndarray], np.ndarray]
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    calibration: Calibration | None

    def default_dataset(self, samples: int | None) -> Dataset:
        """The calibration inputs if they are known, then seeded random inputs as far as ``samples`` asks for more."""
        if self.calibration is None or self.calibration.shape != self.input_shape:
            return random_inputs(self.input_shape, DEFAULT_RANDOM_SAMPLES if samples is None else samples)
        known = self.calibration.samples
        return calibration_dataset(self.calibration, known if samples is None else samples)


def open_reference(name: str, onnx_path: Path, weights: Path | None = None) -> Reference:
    """Prepare the reference ``name`` for the exported model in ``onnx_path``.

    Args:
        name: one of ``REFERENCES``.
        onnx_path: file written by export.
        weights: the checkpoint it was exported with, for "torch".

    Raises:
        InputError: an unknown reference, or a model with several inputs or outputs.
        ModelFileError: the file cannot be used, or does not say what PyTorch model it is.
        ToolError: onnxruntime refuses the file.
    """
    if name not in REFERENCES:
        raise InputError(f"Unknown reference {name!r}; choose one of: {', '.join(REFERENCES)}.")
    if name == "onnxruntime" and weights is not None:
        raise InputError("--weights is for --reference torch only: onnxruntime takes the weights from the ONNX file.")
    model = load_onnx(onnx_path)
    require_binary(model, onnx_path)
    metadata = {item.key: item.value for item in model.metadata_props}
    batch, input_shape, classes = _shapes(model, onnx_path)
    calibration = calibration_of(metadata, onnx_path)
    if name == "onnxruntime":
        return Reference(_onnxruntime(model, onnx_path), input_shape, classes, batch, calibration)
    built = rebuild(metadata, weights, onnx_path, input_shape, classes)
    return Reference(_torch(built.module), input_shape, classes, 1, calibration)


def calibration_dataset(calibration: Calibration, samples: int) -> Dataset:
    """The first ``samples`` calibration inputs, continued by random inputs when that is more than there are."""
    from bnn_deploy.models.calibration import calibration_inputs

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


def _onnxruntime(model: ModelProto, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: its warnings are about optimisations
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:
        raise ToolError(
            f"{path}: onnxruntime cannot load it ({message_lines(error)[0]}); export the model again."
        ) from error
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> np.ndarray:
        try:
            (output,) = session.run(None, {name: images})
        except Exception as error:
            raise ToolError(
                f"{path}: onnxruntime cannot run it ({message_lines(error)[0]}); export the model again."
            ) from error
        return np.asarray(output)

    return run


def _torch(module: Callable[..., object]) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.tensor(images)).numpy()  # type: ignore[attr-defined, no-any-return]

    return run


def _shapes(model: ModelProto, path: Path) -> tuple[int, tuple[int, ...], int]:
    """(fixed batch or 1, shape of one image, number of logits) of a model with one input and one output."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InputError(
            f"{path}: has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "validate compares models with one image in and one row of logits out."
        )
    batch, *image = _dimensions(inputs[0], path)
    classes = prod(_dimensions(model.graph.output[0], path)[1:])
    return max(1, batch), tuple(image), classes


def _dimensions(value: ValueInfoProto, path: Path) -> list[int]:
    """Dimensions, the first one 0 if it is free."""
    dimensions = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    if len(dimensions) < 2 or min(dimensions[1:]) < 1 or dimensions[0] < 0:
        raise InputError(
            f"{path}: {value.name!r} needs a batch dimension and fixed sizes after it; export with a fixed image size."
        )
    return dimensions
