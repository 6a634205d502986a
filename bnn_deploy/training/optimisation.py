"""The optimizer of a step, which of its parameters decay, and its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear

if TYPE_CHECKING:
    from bnn_deploy.training.step import Step

# Layers whose weights are multiplied with activations. Everything else shifts or scales one channel.
_MULTIPLYING = (nn.Conv2d, nn.Linear, BinaryConv2d, BinaryLinear)


def make_optimizer(model: nn.Module, step: Step) -> Optimizer:
    """AdamW or Adam over all parameters, with torch's betas (0.9, 0.999) and epsilon 1e-8.

    Weight decay is AdamW's decoupled one, or for Adam the gradient of an L2 penalty, as ReActNet's code has it. It
    holds for the weights of convolutions and linear layers, binary ones included; unless ``step.decay_all``, nothing
    else decays: biases, normalisation, PReLU slopes, thresholds, the branch weights of BiMLP's blocks. (ReActNet's code
    decays every parameter of four dimensions, which takes in its thresholds and leaves out its classifier.)

    Nothing clips the real weights behind the binary ones, as in the codes of ReActNet and BCDNet. A weight that
    passes +-1 gets no more gradient (``models.straight_through.clip_gradient``) and keeps its sign unless momentum or
    weight decay brings it back, while it still counts in its channel's scale. Weights start at a deviation of 0.1 and
    steps are about a learning rate long, so few get there.

    The groups hold names beside parameters (``group["param_names"]``), by which a checkpoint stores its state.
    """
    decaying, others = parameter_groups(model, step.decay_all)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": step.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kind = {"adamw": AdamW, "adam": Adam}[step.optimizer]
    optimizer: Optimizer = kind([group for group in groups if group["params"]], lr=step.learning_rate)
    return optimizer


Named = list[tuple[str, nn.Parameter]]


def parameter_groups(model: nn.Module, decay_all: bool = False) -> tuple[Named, Named]:
    """The parameters that decay and those that do not, with their names, each in the model's order and exactly once."""
    weights = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _MULTIPLYING)
        for name, parameter in module.named_parameters(recurse=False)
        if name != "bias"
    }
    decaying: Named = []
    others: Named = []
    for name, parameter in model.named_parameters():
        (decaying if decay_all or id(parameter) in weights else others).append((name, parameter))
    return decaying, others


def learning_rate(step: Step, done: int, total: int, per_epoch: int) -> float:
    """The learning rate of the optimizer step that follows ``done`` of ``total``.

    It rises on a line from ``warmup_start * learning_rate`` at the first step to ``learning_rate`` after
    ``warmup_epochs``, and falls from there to ``final_learning_rate``, which it would reach at step ``total``, by half
    a cosine or on a line, or stays. All of this is by steps; ReActNet's code lowers its line once per epoch, so that
    within an epoch its rate stands still where this one falls by 1 / epochs of the first rate.

    Args:
        step: the recipe's step.
        done: optimizer steps done, 0 for the first one.
        total: optimizer steps of the whole recipe step.
        per_epoch: optimizer steps of one epoch.
    """
    peak, final = step.learning_rate, step.final_learning_rate
    warmup = min(round(step.warmup_epochs * per_epoch), total)
    if done < warmup:
        return peak * (step.warmup_start + (1 - step.warmup_start) * done / warmup)
    if step.schedule == "constant":
        return peak
    gone = min((done - warmup) / max(total - warmup, 1), 1.0)
    left = (1 + math.cos(math.pi * gone)) / 2 if step.schedule == "cosine" else 1 - gone
    return final + (peak - final) * left


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Use ``rate`` for all parameters from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
