"""Training of binary networks in the papers' steps: recipes, data, the loop, checkpoints and logs.

``train(load_recipe("bimlp_tiny"), open_training_data(Path("digits"), "bimlp_tiny"), Path("run"))`` is the whole of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn_deploy.training.data import TrainingData, open_training_data
    from bnn_deploy.training.options import Report, TrainOptions
    from bnn_deploy.training.recipe import Recipe, load_recipe, recipe_names
    from bnn_deploy.training.result import StepResult, TrainingResult
    from bnn_deploy.training.runs import train
    from bnn_deploy.training.step import Step

# What needs PyTorch is imported when it is first asked for, so that reading a recipe does not.
_HOMES = {
    "Recipe": "recipe",
    "Report": "options",
    "Step": "step",
    "StepResult": "result",
    "TrainOptions": "options",
    "TrainingData": "data",
    "TrainingResult": "result",
    "load_recipe": "recipe",
    "open_training_data": "data",
    "recipe_names": "recipe",
    "train": "runs",
}

__all__ = [
    "Recipe",
    "Report",
    "Step",
    "StepResult",
    "TrainOptions",
    "TrainingData",
    "TrainingResult",
    "load_recipe",
    "open_training_data",
    "recipe_names",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Kept, so that this is asked once.
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
