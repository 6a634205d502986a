"""Batch normalisation over the images of several processes on CPUs, for which PyTorch's SyncBatchNorm has no code."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist


class _Total(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs, since each one's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _total(x: Tensor) -> Tensor:
    result: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]  # torch's
    return result


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of the images of all processes: (N, C, H, W) in each, to the same shape and dtype.

    Every process calls it at the same places, in training as many times as the others. In evaluation it is nn.BatchNorm2d.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # Sums of half precision would lose the small differences that a variance consists of.
        values = x if x.dtype == torch.float64 else x.float()
        local = torch.cat([values.sum(dim=(0, 2, 3)), values.new_tensor([values.numel() // values.shape[1]])])
        total = _total(local)
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = values - mean.reshape(1, -1, 1, 1)
        # Of the centred values: a difference of large sums (mean of squares minus square of mean) would cancel.
        variance = _total(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        y = centred * (variance + self.eps).rsqrt().reshape(1, -1, 1, 1)
        return (y * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """nn.BatchNorm2d's running statistics; its running variance is the unbiased one."""
        running_mean, running_variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        cast(Tensor, self.num_batches_tracked).add_(1)
        running_mean.lerp_(mean.to(running_mean.dtype), cast(float, self.momentum))
        running_variance.lerp_(variance.to(running_variance.dtype), cast(float, self.momentum))


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Replace every nn.BatchNorm2d inside ``model`` (changed in place); returns the new root.

    The layers keep their parameters, buffers, names and mode.
    """
    if type(model) is nn.BatchNorm2d:
        return _synchronised(model)
    for name, child in model.named_children():
        setattr(model, name, synchronise_batch_norm(child))
    return model


def _synchronised(layer: nn.BatchNorm2d) -> SynchronisedBatchNorm2d:
    if not (layer.affine and layer.track_running_stats and layer.momentum is not None):
        raise ValueError(f"Only a BatchNorm2d with weights, statistics and a momentum is synchronised, not {layer}.")
    with torch.device("meta"):
        result = SynchronisedBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
    result.weight, result.bias = layer.weight, layer.bias
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(result, name, buffer)
    return result.train(layer.training)
