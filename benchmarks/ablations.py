"""BiMLPs with a part of them left out or replaced, to see what it is good for. The package's models stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from bnn_deploy.models import registry
from bnn_deploy.models.bimlp_layers import MLP, PATM, Variant, WaveBlock
from bnn_deploy.models.layers import RPReLU


@dataclass(frozen=True)
class _NoAverage(Variant):
    """A variant without the uni-shortcut from more channels to fewer."""

    def average(self, x: Tensor, n: int) -> Tensor:
        """Nothing, as a scalar 0."""
        return x.new_zeros(())


class _PlainMLP(MLP):
    """An MLP without shortcuts: both of its layers change the number of channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.norm1(self.fc1(self.binarise1(self.move1(x)))))
        return self.act3(self.norm2(self.fc2(self.binarise2(self.move2(x)))))


class _ChannelPATM(PATM):
    """A token mixing of which the channel branch is left."""

    def forward(self, x: Tensor) -> Tensor:
        moved = self.move_fcc(x)
        c = self.act_c(self.norm_c(self.fc_c(self.binarise_fcc(moved))) + moved)
        moved = self.move_proj(c + x)
        return self.act_proj(self.norm_proj(self.proj(self.binarise_proj(moved))) + moved)


class _ChannelBlock(WaveBlock):
    """A block whose second half is the channel MLP."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def without_uni_shortcut(model: nn.Module) -> None:
    """Layers that change the number of channels get no shortcut."""
    for module in model.modules():
        if isinstance(module, MLP):
            module.__class__ = _PlainMLP
            _drop(module, "norm0", "act1")
        elif isinstance(module, PATM):
            module.variant = _NoAverage(**vars(module.variant))


def single_branch(model: nn.Module) -> None:
    """Blocks keep their channel branches; positions meet in the stem and in the downsampling only."""
    for module in model.modules():
        if isinstance(module, WaveBlock):
            module.__class__ = _ChannelBlock
            _drop(module, *(f"{part}_{side}" for side in "hw" for part in ("move", "binarise", "sfc", "norm")))
            _drop(module, "act1", "act2")
            del module.weight
        elif isinstance(module, PATM):
            module.__class__ = _ChannelPATM
            kept = ("move_fcc", "binarise_fcc", "fc_c", "norm_c", "act_c")
            projection = ("move_proj", "binarise_proj", "proj", "norm_proj", "act_proj")
            _drop(module, *(name for name, _ in module.named_children() if name not in (*kept, *projection)))


def prelu(model: nn.Module) -> None:
    """PReLU for RPReLU: no bias before it and none after it."""
    _swap_activations(model, lambda module: module.act)


def relu(model: nn.Module) -> None:
    """ReLU for RPReLU."""
    _swap_activations(model, lambda module: nn.ReLU())


ABLATIONS: dict[str, Callable[[nn.Module], None]] = {
    "BiMLP-tiny": lambda model: None,
    "without uni-shortcut": without_uni_shortcut,
    "single branch": single_branch,
    "PReLU": prelu,
    "ReLU": relu,
}


@contextmanager
def changed_model(name: str, change: Callable[[nn.Module], None]) -> Iterator[None]:
    """Within it, ``build_model(name)`` gives a model to which ``change`` has been done."""
    spec = registry.MODELS[name]

    def construct(**arguments: object) -> nn.Module:
        model = spec.constructor(**arguments)
        change(model)
        return model

    registry.MODELS[name] = replace(spec, constructor=construct)
    try:
        yield
    finally:
        registry.MODELS[name] = spec


def _drop(module: nn.Module, *names: str) -> None:
    """Forget children that are not called any more, and their parameters with them."""
    for name in names:
        delattr(module, name)


def _swap_activations(model: nn.Module, swap: Callable[[RPReLU], nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, RPReLU):
                setattr(module, name, swap(child))
