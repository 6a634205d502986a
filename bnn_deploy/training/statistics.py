"""What training of binary networks needs to watch: signs that flip, and channels whose activation never changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation

if TYPE_CHECKING:
    from bnn_deploy.training.processes import Processes


class SignFlips:
    """Counts the binary weights whose sign is another one than when ``start`` was called.

    Only layers that are binary when this is made count: in a step with real weights there are none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, BinaryConv2d | BinaryLinear) and module.binary
        }
        self._signs: dict[str, NDArray[np.uint8]] = {}
        self.start()

    def start(self) -> None:
        """Remember the signs as they are now, one bit for each weight."""
        self._signs = {path: np.packbits(_signs(layer)) for path, layer in self._layers.items()}

    def rates(self) -> dict[str, tuple[int, int]]:
        """(weights of another sign than at ``start``, all weights) of each binary layer, by its path in the model."""
        rates = {}
        for path, layer in self._layers.items():
            signs = _signs(layer)
            before = np.unpackbits(self._signs[path], count=signs.size).astype(bool)
            rates[path] = (int(np.count_nonzero(signs != before)), signs.size)
        return rates

    def state(self) -> dict[str, Tensor]:
        """The remembered signs by layer path: uint8 of ceil(weights / 8), first weight in the highest bit, 1 for +1."""
        return {path: torch.from_numpy(signs.copy()) for path, signs in self._signs.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Remember the signs of a ``state()`` of the same layers."""
        self._signs = {path: signs.cpu().numpy().copy() for path, signs in state.items()}


def _signs(layer: BinaryConv2d | BinaryLinear) -> NDArray[np.bool_]:
    """True for +1, all weights in one row."""
    return (layer.binary_weight().detach() > 0).flatten().cpu().numpy()


class DeadChannels:
    """Finds binarised channels that have one and the same value for all images and positions seen inside ``with``.

    Such a channel tells the next layer nothing that a constant would not. Watched are the activations that are binary
    when the context is entered, with (N, C, H, W) or (N, C); three bits for each channel are kept, no activations.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[RemovableHandle] = []
        # (C, 3) of bool for each path, which of -1, 0 and +1 were seen; None before the layer's first call.
        self._seen: dict[str, Tensor | None] = {}

    def __enter__(self) -> DeadChannels:
        self._seen = {}
        for path, module in self._model.named_modules():
            if isinstance(module, BinaryActivation | TernaryActivation) and module.binary:
                self._seen[path] = None
                self._handles.append(module.register_forward_hook(self._hook(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def counts(self, processes: Processes) -> dict[str, tuple[int, int]]:
        """(dead channels, all channels) of each activation that was called, by its path in the model.

        Every process must call this: a channel is dead when it has the same one value in all of them.
        """
        if not self._seen:
            return {}
        # A process without a share of the images knows no channel counts: the others tell it.
        sizes = [(0, 0) if seen is None else (len(seen), 1) for seen in self._seen.values()]
        totals = processes.total(torch.tensor(sizes, dtype=torch.int64, device=processes.device)).tolist()
        channels = [size // knowing if knowing else 0 for size, knowing in totals]
        tables = [
            torch.zeros(count, 3, dtype=torch.int64, device=processes.device)
            if seen is None
            else seen.to(device=processes.device, dtype=torch.int64)
            for seen, count in zip(self._seen.values(), channels, strict=True)
        ]
        values = (processes.total(torch.cat(tables)) > 0).sum(dim=1).cpu()
        dead = [int((part == 1).sum()) for part in torch.split(values, channels)]
        return {
            path: (dead_channels, count)
            for path, dead_channels, count in zip(self._seen, dead, channels, strict=True)
            if count
        }

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        @torch.no_grad()
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            others = [dimension for dimension in range(output.dim()) if dimension != 1]
            extremes = torch.stack([output.amin(dim=others), output.amax(dim=others)], dim=1).long() + 1
            seen = self._seen[path]
            if seen is None:
                seen = torch.zeros(len(extremes), 3, dtype=torch.bool, device=output.device)
                self._seen[path] = seen
            seen.scatter_(1, extremes, True)

        return look
