"""Straight-through estimators: exact binary values forwards, the papers' surrogate gradients backwards.

Written as autograd functions, not as ``surrogate + (value - surrogate).detach()``, because that sum rounds and would
hand 0.99999994 instead of 1 to the next layer.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

SignGradient = Literal["clip", "polynomial"]


def sign(x: Tensor) -> Tensor:
    """+1 where ``x > 0``, else -1, in the dtype of ``x``: zero, -0.0 and NaN give -1 (BiMLP Eq. 1, BCDNet Eq. 11)."""
    return (x > 0).to(x.dtype) * 2 - 1


def ternary(x: Tensor) -> Tensor:
    """+1 where ``x > 0.5``, -1 where ``x < -0.5``, else 0, which equals ``rint(clip(x, -1, 1))``; NaN gives 0."""
    return (x > 0.5).to(x.dtype) - (x < -0.5).to(x.dtype)


def clip_gradient(x: Tensor) -> Tensor:
    """Derivative of clip(x, -1, 1): 1 where ``abs(x) <= 1``, else 0 (BiMLP Eq. 3)."""
    return (x.abs() <= 1).to(x.dtype)


def polynomial_gradient(x: Tensor) -> Tensor:
    """Derivative of Bi-Real's piecewise quadratic sign: ``2 - 2 abs(x)`` inside (-1, 1), else 0 (ReActNet, BCDNet)."""
    return (2 - 2 * x.abs()).clamp(min=0)


_GRADIENTS = {"clip": clip_gradient, "polynomial": polynomial_gradient}


def trainable_sign(x: Tensor, gradient: SignGradient) -> Tensor:
    """``sign`` with the named surrogate gradient."""
    result: Tensor = _Sign.apply(x, gradient)  # type: ignore[no-untyped-call] # torch gives `apply` no types
    return result


def trainable_ternary(x: Tensor) -> Tensor:
    """``ternary`` with the gradient of clip."""
    result: Tensor = _Ternary.apply(x)  # type: ignore[no-untyped-call]
    return result


def trainable_scaled_sign(weight: Tensor, scale: Tensor) -> Tensor:
    """``scale * sign(weight)``; the gradient reaches only the weight, unscaled, where ``abs(weight) <= 1``."""
    result: Tensor = _ScaledSign.apply(weight, scale)  # type: ignore[no-untyped-call]
    return result


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: SignGradient) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        return sign(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * _GRADIENTS[ctx.gradient](x), None


class _Ternary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return ternary(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * clip_gradient(x)


class _ScaledSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return scale * sign(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad_outputs[0] * clip_gradient(weight), None
