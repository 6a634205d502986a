"""What changes while a step trains: its network, optimizer, average, and the signs that flips are counted from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn_deploy.errors import InputError
from bnn_deploy.training.averaging import Average
from bnn_deploy.training.checkpoint import unusable
from bnn_deploy.training.optimisation import make_optimizer
from bnn_deploy.training.statistics import SignFlips
from bnn_deploy.training.step import Step
from bnn_deploy.weights.safetensors_file import Description, UnfitTensorsError, describe, read_tensors

# torch's Adam and AdamW; "step" is a float32 scalar, the others are shaped as their parameter.
_COUNT = "step"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class StepState:
    """A step's network with all that belongs to it.

    Attributes:
        network: the one that trains, on its device, with its BN synchronised.
        optimizer: of all its parameters.
        average: of it, None if the step has none.
        flips: see ``SignFlips``.
    """

    def __init__(self, network: nn.Module, step: Step) -> None:
        self.network = network
        self.optimizer = make_optimizer(network, step)
        self.average = Average(network, step.average) if step.average else None
        self.flips = SignFlips(network)

    @property
    def evaluated(self) -> nn.Module:
        """What the step is about: the average if it has one."""
        return self.network if self.average is None else self.average.model

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint; not copied."""
        tensors = _prefixed("model", self.network.state_dict())
        if self.average is not None:
            tensors.update(_prefixed("average", self.average.state()))
        tensors.update(_prefixed("signs", self.flips.state()))
        for name, states in self._optimizer_states().items():
            tensors.update(_prefixed(f"optimizer.{name}", states))
        return tensors

    def load(self, path: Path) -> None:
        """Take over the tensors of the checkpoint ``path``.

        Raises:
            InputError: they are not this step's, or not finite.
        """
        try:
            tensors = read_tensors(path, self._expected)
        except UnfitTensorsError as error:
            raise unusable(path, str(error)) from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        self.network.load_state_dict(_part(tensors, "model"))
        if self.average is not None:
            self.average.load_state(_part(tensors, "average"))
        self.flips.load_state(_part(tensors, "signs"))
        self._load_optimizer(_part(tensors, "optimizer"))

    def _names(self) -> list[str]:
        """Names of the parameters in the order of the optimizer's numbers."""
        return [name for group in self.optimizer.param_groups for name in group["param_names"]]

    def _optimizer_states(self) -> dict[str, dict[str, Tensor]]:
        states = self.optimizer.state_dict()["state"]
        return {name: states[index] for index, name in enumerate(self._names()) if index in states}

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        content: dict[str, Any] = self.optimizer.state_dict()
        content["state"] = {}
        for index, name in enumerate(self._names()):
            states = _part(tensors, name, names=(_COUNT, *_MOMENTS))
            if states:
                content["state"][index] = states
        self.optimizer.load_state_dict(content)

    def _expected(self, found: set[str]) -> dict[str, Description]:
        """Kinds and shapes by name. A parameter has all of its optimizer's state or, before its first gradient, none."""
        others = {**_prefixed("model", self.network.state_dict()), **_prefixed("signs", self.flips.state())}
        if self.average is not None:
            others.update(_prefixed("average", self.average.state()))
        expected = {name: describe(tensor) for name, tensor in others.items()}
        for name, parameter in self.network.named_parameters():
            names = [f"optimizer.{name}.{state}" for state in (_COUNT, *_MOMENTS)]
            if found.intersection(names):
                expected[names[0]] = describe(torch.zeros(()))
                expected.update(dict.fromkeys(names[1:], describe(parameter)))
        return expected


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str, names: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Those below ``prefix``, with the names they have there; only ``names`` if given."""
    start = f"{prefix}."
    part = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return {name: tensor for name, tensor in part.items() if not names or name in names}
