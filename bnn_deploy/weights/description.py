"""What a file of weights says about its model: the metadata that `train` writes, read without trusting them.

``weights.weights_file`` lists the entries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_deploy.errors import ModelFileError
from bnn_deploy.metadata.class_names import class_names_of
from bnn_deploy.metadata.preprocessing import preprocessing_of
from bnn_deploy.models.registry import LARGEST_CLASS_COUNT, LARGEST_INPUT_SIZE, MODELS
from bnn_deploy.weights.safetensors_file import UnfitTensorsError, read_metadata
from bnn_deploy.weights.weights_file import PREFIX, WeightsDescription

SUFFIX = ".safetensors"
CHECKPOINT = PREFIX + "checkpoint"  # the entry that ``training.checkpoint`` writes


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
    if CHECKPOINT in metadata:
        raise ModelFileError(
            f"{path}: is the checkpoint of a training run; give its weights.safetensors, which is there when the run has "
            "finished."
        )
    model = metadata.get(PREFIX + "model")
    if model is None:
        return None
    if model not in MODELS:
        raise ModelFileError(
            f"{path}: holds weights of {model[:40]!r}, which is none of the models that can be exported; give the "
            "weights.safetensors of a training run."
        )
    spec = MODELS[model]
    variant = metadata.get(PREFIX + "variant", "")
    if variant not in (spec.variants or ("",)):
        raise _damaged(path, "variant", f"{variant[:40]!r}, which {model} does not have")
    classes = _integer(metadata, "num_classes", LARGEST_CLASS_COUNT, path)
    size = _integer(metadata, "input_size", LARGEST_INPUT_SIZE, path)
    preprocessing = preprocessing_of(metadata, str(path))
    names = class_names_of(metadata, str(path))
    if preprocessing is None:
        raise _damaged(path, "preprocessing", "missing")
    if preprocessing.shape != (spec.channels, size, size):
        raise _damaged(path, "preprocessing", f"for images {preprocessing.shape}, not {(spec.channels, size, size)}")
    if names is None or len(names) != classes:
        found = "missing" if names is None else f"{len(names)} names"
        raise _damaged(path, "class_names", f"{found} for {classes} classes")
    return WeightsDescription(model, variant, preprocessing, names, _training(metadata, path))


def _training(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        training = json.loads(metadata.get(PREFIX + "training", "{}"))
        if not isinstance(training, dict):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "training", "no JSON object") from error
    return training


def _integer(metadata: Mapping[str, str], key: str, largest: int, path: Path) -> int:
    text = metadata.get(PREFIX + key, "")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest)) and 1 <= int(text) <= largest):
        raise _damaged(path, key, f"{text[:40]!r}, not a number from 1 to {largest}" if text else "missing")
    return int(text)


def _damaged(path: Path, key: str, found: str) -> ModelFileError:
    return ModelFileError(f"{path}: its metadata entry {PREFIX}{key} is {found}; write the file again with `train`.")
