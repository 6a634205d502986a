"""The networks of a recipe's steps: built, and with the weights of steps that are finished."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from bnn_deploy.metadata.preprocessing import Preprocessing
from bnn_deploy.models.float_resnet import build_teacher
from bnn_deploy.models.precision import set_gradient, set_precision
from bnn_deploy.models.registry import build_model
from bnn_deploy.models.straight_through import SignGradient
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.seeds import seed_of
from bnn_deploy.training.step import Step
from bnn_deploy.weights.load_checkpoint import load_checkpoint


def build_network(recipe: Recipe, step: Step, *, classes: int, preprocessing: Preprocessing, seed: int) -> nn.Module:
    """The network of ``step``, float32 on the CPU, with weights that follow from the seed and the step's name.

    Raises:
        InputError: the model cannot have this size or class count, or not this gradient.
    """
    channels, size, _ = preprocessing.shape
    # The models draw their weights from torch's own generator, whose state is the caller's.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, step.name, "weights"))
        if step.model:
            network = build_teacher(step.model, channels, classes)
        else:
            network = build_model(recipe.model, variant=recipe.variant, num_classes=classes, input_size=size)
    set_precision(network, activations=step.activations, weights=step.weights)
    if step.gradient:
        set_gradient(network, cast(SignGradient, step.gradient))
    return network


def load_weights(network: nn.Module, path: Path) -> None:
    """Take over weights of a file, ours or a user's; raises ModelFileError if they do not fit."""
    # Zeros are the papers' -1: in files of users; ours have none.
    load_checkpoint(network, path, zero_weights="-1")
