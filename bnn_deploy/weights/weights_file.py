"""The weights that a step of training ends with, as safetensors, with what `export` and users must know in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError
from bnn_deploy.metadata import entries
from bnn_deploy.metadata.class_names import class_names_json, class_names_of
from bnn_deploy.metadata.preprocessing import Preprocessing, preprocessing_of
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.models.registry import LARGEST_CLASS_COUNT, LARGEST_INPUT_SIZE, MODELS, Architecture
from bnn_deploy.weights.safetensors_file import SUFFIX, UnfitTensorsError, read_metadata, write_tensors

# The negative normal number nearest to 0: PyTorch's sign of it is -1, as the papers define sign(0), and no mean of
# magnitudes shows it. A subnormal one would be 0 on processors set to flush them.
ZERO = -torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class WeightsDescription:
    """What the metadata of a file of weights say.

    Attributes:
        model: a name of ``models.registry``, or of a teacher (``models.float_resnet``).
        variant: "" where the model has none.
        preprocessing: how images are made of pictures; its crop is the size of the input.
        class_names: in the order of the logits.
        training: how the weights were made, for people: recipe, step, accuracy, number of test images.
    """

    model: str
    variant: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    training: Mapping[str, Any]

    @property
    def architecture(self) -> Architecture:
        """Of a model of the registry."""
        return Architecture(self.model, self.variant, len(self.class_names), self.preprocessing.crop[0])

    def to_metadata(self) -> dict[str, str]:
        """Entries with the names that ONNX files of `export` have, too."""
        return {
            entries.MODEL: self.model,
            entries.VARIANT: self.variant,
            entries.NUM_CLASSES: str(len(self.class_names)),
            entries.INPUT_SIZE: str(self.preprocessing.crop[0]),
            entries.TRAINING: json.dumps(self.training, sort_keys=True),
            entries.PREPROCESSING: self.preprocessing.to_json(),
            entries.CLASS_NAMES: class_names_json(self.class_names),
        }


def deployed_tensors(model: nn.Module, *, binary_weights: bool) -> dict[str, Tensor]:
    """A model's parameters and buffers on the CPU, floats as float32, by name.

    Args:
        model: of any precision.
        binary_weights: its binary layers use the signs of their weights. Weights that are exactly 0 then become
            ``ZERO``: ours is the papers' sign, but a file cannot say that, and `export` asks about zeros.
    """
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().clone()
        for name, tensor in model.state_dict().items()
    }
    if binary_weights:
        for path, module in model.named_modules():
            if isinstance(module, BinaryConv2d | BinaryLinear):
                for name, _ in module.named_parameters(recurse=False):
                    tensor = tensors[f"{path}.{name}" if path else name]
                    tensor[tensor == 0] = ZERO
    return tensors


def write_weights(path: Path, tensors: Mapping[str, Tensor], description: WeightsDescription) -> None:
    """Write the file, whole or not at all; raises InputError if it cannot be written."""
    write_tensors(path, tensors, description.to_metadata())


def describe_weights(path: Path) -> WeightsDescription | None:
    """What the file says; None if it is no safetensors file, or says nothing of a model.

    Raises:
        ModelFileError: the file cannot be read, or its metadata are damaged or contradict themselves.
    """
    if path.suffix != SUFFIX:
        return None
    try:
        metadata = read_metadata(path)
    except OSError as error:
        raise ModelFileError(f"The weights in {path} cannot be read ({error.strerror}).") from error
    except UnfitTensorsError as error:
        raise ModelFileError(f"The safetensors file {path} cannot be read ({error}); write it again.") from error
    if entries.CHECKPOINT in metadata:
        raise ModelFileError(
            f"{path}: is the checkpoint of a training run; give its weights.safetensors, which is there when the run has "
            "finished."
        )
    model = metadata.get(entries.MODEL)
    if model is None:
        return None
    if model not in MODELS:
        raise ModelFileError(
            f"{path}: holds weights of {model[:40]!r}, which is none of the models that can be exported; give the "
            "weights.safetensors of a training run."
        )
    spec = MODELS[model]
    variant = metadata.get(entries.VARIANT, "")
    if variant not in (spec.variants or ("",)):
        raise _damaged(path, entries.VARIANT, f"{variant[:40]!r}, which {model} does not have")
    classes = _integer(metadata, entries.NUM_CLASSES, LARGEST_CLASS_COUNT, path)
    size = _integer(metadata, entries.INPUT_SIZE, LARGEST_INPUT_SIZE, path)
    preprocessing = preprocessing_of(metadata, str(path))
    names = class_names_of(metadata, str(path))
    if preprocessing is None:
        raise _damaged(path, entries.PREPROCESSING, "missing")
    if preprocessing.shape != (spec.channels, size, size):
        raise _damaged(
            path, entries.PREPROCESSING, f"for images {preprocessing.shape}, not {(spec.channels, size, size)}"
        )
    if names is None or len(names) != classes:
        found = "missing" if names is None else f"{len(names)} names"
        raise _damaged(path, entries.CLASS_NAMES, f"{found} for {classes} classes")
    return WeightsDescription(model, variant, preprocessing, names, _training(metadata, path))


def _training(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        training = json.loads(metadata.get(entries.TRAINING, "{}"))
        if not isinstance(training, dict):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise _damaged(path, entries.TRAINING, "no JSON object") from error
    return training


def _integer(metadata: Mapping[str, str], key: str, largest: int, path: Path) -> int:
    text = metadata.get(key, "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest)) and 1 <= int(text) <= largest):
        raise _damaged(path, key, f"{text[:40]!r}, not a number from 1 to {largest}" if text else "missing")
    return int(text)


def _damaged(path: Path, key: str, found: str) -> ModelFileError:
    return ModelFileError(f"{path}: its metadata entry {key} is {found}; write the file again with `train`.")
