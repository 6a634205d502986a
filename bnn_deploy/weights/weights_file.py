"""The weights that a step ends with, as safetensors, with what `export` and users must know of them in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_deploy.metadata import class_names as names_entry
from bnn_deploy.metadata import preprocessing as preprocessing_entry
from bnn_deploy.metadata.class_names import class_names_json
from bnn_deploy.metadata.preprocessing import Preprocessing
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.weights.safetensors_file import write_tensors

PREFIX = "bnn_deploy."
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

    def to_metadata(self) -> dict[str, str]:
        """Entries with the names that ONNX files of `export` have, too."""
        return {
            PREFIX + "model": self.model,
            PREFIX + "variant": self.variant,
            PREFIX + "num_classes": str(len(self.class_names)),
            PREFIX + "input_size": str(self.preprocessing.crop[0]),
            PREFIX + "training": json.dumps(self.training, sort_keys=True),
            preprocessing_entry.KEY: self.preprocessing.to_json(),
            names_entry.KEY: class_names_json(self.class_names),
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
