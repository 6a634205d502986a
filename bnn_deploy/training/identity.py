"""What a training run is, so that no checkpoint goes on in another one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch

from bnn_deploy.errors import InputError
from bnn_deploy.files import file_sha256
from bnn_deploy.models.registry import find_spec
from bnn_deploy.training.data import TrainingData
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.recipe import Recipe


def run_identity(recipe: Recipe, data: TrainingData, options: TrainOptions) -> dict[str, str]:
    """What is learned depends on it; where files lie makes no difference. In the order in which it is compared.

    Raises:
        InputError: the given weights of a teacher cannot be read.
    """
    try:
        teachers = {name: file_sha256(path) for name, path in sorted(options.teachers.items())}
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); give a file of weights as teacher."
        ) from error
    return {
        "model": recipe.model,
        "variant": variant_of(recipe),
        "classes": str(len(data.class_names)),
        "input_size": str(data.preprocessing.crop[0]),
        "recipe": hashlib.sha256(replace(recipe, description="").to_toml().encode()).hexdigest(),
        "data": data.identity,
        "seed": str(options.seed),
        "precision": options.precision,
        "teachers": hashlib.sha256(json.dumps(teachers).encode()).hexdigest() if teachers else "",
    }


def run_environment(options: TrainOptions, processes: Processes) -> dict[str, str]:
    """What may change the last bits of sums, by the words for it."""
    return {
        "version of PyTorch": torch.__version__,
        "kind of device": processes.device.type,
        "number of threads": str(torch.get_num_threads()),
        "number of processes": str(processes.count),
        "number of accumulated passes": str(options.accumulate),
    }


def variant_of(recipe: Recipe) -> str:
    """The variant that the recipe's model is built in, "" where it has none."""
    variants = find_spec(recipe.model).variants
    return recipe.variant or (variants[0] if variants else "")
