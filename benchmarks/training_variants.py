"""The recipes that the papers' two steps are compared with, made of a recipe of two steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bnn_deploy.training.recipe import Recipe

BINARY_ACTIVATIONS, BINARY, CNN = "binary_activations", "binary", "cnn"


def two_step(recipe: Recipe) -> Recipe:
    """The recipe as it is."""
    return recipe


def one_step(recipe: Recipe) -> Recipe:
    """Binary weights from the start, with the CNN as teacher and as many epochs as the two steps have together."""
    first, second = recipe.step(BINARY_ACTIVATIONS), recipe.step(BINARY)
    # What the first step has for a network that starts from random weights, such as its warm-up.
    only = replace(first, name=BINARY, weights="binary", start="", teacher=CNN, epochs=first.epochs + second.epochs)
    return replace(recipe, steps=(recipe.step(CNN), only))


def without_distillation(recipe: Recipe) -> Recipe:
    """The two steps on labels alone."""
    first, second = recipe.step(BINARY_ACTIVATIONS), recipe.step(BINARY)
    steps = (replace(first, teacher="", distillation=0.0), replace(second, teacher="", distillation=0.0))
    if first.start:
        steps = (recipe.step(first.start), *steps)
    return replace(recipe, steps=steps)


VARIANTS: dict[str, Callable[[Recipe], Recipe]] = {
    "two steps": two_step,
    "one step": one_step,
    "no distillation": without_distillation,
}
