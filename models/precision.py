"""Switches a model between the precisions of a training recipe: binary or real activations, binary or real weights.

Parameters and state dict names are the same in every precision, so one step's weights start the next step.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from bnn_deploy.errors import InputError
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation
from bnn_deploy.models.straight_through import SignGradient

Precision = Literal["binary", "real"]


def set_precision(model: nn.Module, *, activations: Precision, weights: Precision) -> None:
    """Make all activations and all weights of the binary layers of ``model`` (changed in place) binary or real.

    Raises:
        InputError: a precision that is neither "binary" nor "real".
    """
    for what, precision in (("activations", activations), ("weights", weights)):
        if precision not in ("binary", "real"):
            raise InputError(f"Unknown precision {precision!r} of the {what}; choose 'binary' or 'real'.")
    for module in model.modules():
        if isinstance(module, BinaryActivation | TernaryActivation):
            module.binary = activations == "binary"
        elif isinstance(module, BinaryConv2d | BinaryLinear):
            module.binary = weights == "binary"


def set_gradient(model: nn.Module, gradient: SignGradient) -> None:
    """Give every sign of the activations of ``model`` (changed in place) the straight-through ``gradient``.

    Weights keep theirs, which is clip in all of the papers.

    Raises:
        InputError: an unknown gradient, or "polynomial" for ternary activations, which have clip's only.
    """
    if gradient not in ("clip", "polynomial"):
        raise InputError(f"Unknown gradient {gradient!r} of the activations; choose 'clip' or 'polynomial'.")
    if gradient == "polynomial":
        for path, module in model.named_modules():
            if isinstance(module, TernaryActivation):
                raise InputError(
                    f"The activation {path or 'of the model'} is ternary (BiMLP's released variant) and has clip's "
                    "gradient only, not 'polynomial'; choose 'clip', or the variant 'paper'."
                )
    for module in model.modules():
        if isinstance(module, BinaryActivation):
            module.gradient = gradient
