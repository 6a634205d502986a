"""An exponential moving average of a model's parameters and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """A copy of a model, moved towards it after every optimizer step: parameters, and the BN statistics with them.

    The first update copies; in the n-th after it the copy keeps a share of min(``decay``, (1 + n) / (10 + n)) of itself.
    The ramp is that of TensorFlow's ExponentialMovingAverage: without it, what a run of few steps beside 1 / (1 - decay)
    leaves would be mostly its initial weights.
    Binary layers of the copy have the signs and scales of the averaged real weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Copy ``model`` (not a DDP wrapper); ``decay`` is the recipe's ``average``, 0 < decay < 1."""
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        """The averaged model; before the first update a copy of the initial one."""
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Take in the parameters that an optimizer step has left."""
        self._averaged.update_parameters(model)

    def state(self) -> dict[str, Tensor]:
        """Everything that ``load_state`` needs to go on bit for bit, with names of its own; tensors are not copied."""
        return dict(self._averaged.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state()`` of an average of the same model."""
        self._averaged.load_state_dict(dict(state))

    @torch.no_grad()
    def _mix(self, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        """What AveragedModel calls for all tensors of one dtype, from the second update on."""
        if averaged[0].is_floating_point():
            count = int(updates)
            share = min(self._decay, (1 + count) / (10 + count))
            mix: Any = get_ema_multi_avg_fn(share)  # type: ignore[no-untyped-call]  # of torch
            mix(list(averaged), list(current), count)
        else:
            # BN's counts of batches.
            for mine, other in zip(averaged, current, strict=True):
                mine.copy_(other)
