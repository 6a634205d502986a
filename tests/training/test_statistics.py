"""Sign flips and dead channels, planted and found exactly."""

from __future__ import annotations

import threading
import weakref
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    FlatBinaryConv2d,
    LearnableBias,
    TernaryActivation,
)
from bnn_deploy.models.precision import set_precision
from bnn_deploy.models.registry import build_model, input_shape
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.statistics import DeadChannels, SignFlips


def layers() -> nn.ModuleDict:
    """One layer of each kind that holds binary weights, 27, 45 and 15 of them, none 0; and a real one."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "conv": BinaryConv2d(3, 9),
            "flat": FlatBinaryConv2d(1, 5, 3),
            "linear": BinaryLinear(3, 5),
            "real": nn.Conv2d(3, 9, 1),
        }
    )


def flip(parameter: Tensor, count: int) -> None:
    """Change the sign of the first ``count`` weights in a fixed random order."""
    chosen = np.random.default_rng(0).permutation(parameter.numel())[:count]
    with torch.no_grad():
        parameter.view(-1)[torch.from_numpy(chosen)] *= -1


@pytest.mark.parametrize("count", [0, 1, 7, 15])
def test_planted_flips(count: int) -> None:
    """Breaks if a flip is missed, counted twice or in another layer, or padding bits are counted."""
    model = layers()
    flips = SignFlips(model)
    flip(model["conv"].weight, 27 - count)
    flip(model["flat"].weights, count)
    flip(model["linear"].weight, count)
    flip(model["real"].weight, 5)
    assert flips.rates() == {"conv": (27 - count, 27), "flat": (count, 45), "linear": (count, 15)}
    flips.start()
    assert flips.rates() == {"conv": (0, 27), "flat": (0, 45), "linear": (0, 15)}


def test_zero_is_minus_one() -> None:
    """Breaks if a weight of 0 counts as +1 here and as -1 in the layer, or a change of size as one of sign."""
    model = nn.Sequential(BinaryLinear(4, 1))
    weight = cast(nn.Parameter, model[0].weight)
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.0, -0.0, 0.5, -0.5]]))
        flips = SignFlips(model)
        weight.copy_(torch.tensor([[-1.0, 0.0, 0.1, -0.1]]))
        assert flips.rates() == {"0": (0, 4)}
        weight.copy_(torch.tensor([[1.0, 1.0, 0.0, -0.1]]))
        assert flips.rates() == {"0": (3, 4)}


def test_real_weights_have_no_signs() -> None:
    """Breaks if a step with real weights reports flips of signs that it does not use."""
    model = layers()
    set_precision(model, activations="binary", weights="real")
    flips = SignFlips(model)
    flip(model["conv"].weight, 3)
    assert flips.rates() == {} and flips.state() == {}


def test_state_goes_into_a_checkpoint() -> None:
    """Breaks if a run resumed within an epoch counts other flips than one that was never stopped."""
    model = layers()
    flips = SignFlips(model)
    state = flips.state()
    assert {path: (signs.dtype, signs.tolist()) for path, signs in state.items()} == {
        path: (torch.uint8, np.packbits(model[path].binary_weight().detach().numpy() > 0).tolist())
        for path in ("conv", "flat", "linear")
    }
    flip(model["flat"].weights, 11)
    resumed = SignFlips(model)
    assert resumed.rates()["flat"] == (0, 45)
    resumed.load_state(state)
    assert resumed.rates() == flips.rates() == {"conv": (0, 27), "flat": (11, 45), "linear": (0, 15)}
    # What is remembered is no view of what was given, or taken.
    for signs in state.values():
        signs.fill_(0)
    assert resumed.rates() == flips.rates() == {"conv": (0, 27), "flat": (11, 45), "linear": (0, 15)}


def test_bits_beyond_the_last_weight() -> None:
    """Breaks if a damaged checkpoint can make more flips than there are weights."""
    model = nn.Sequential(BinaryLinear(3, 1))
    flips = SignFlips(model)
    with torch.no_grad():
        cast(nn.Parameter, model[0].weight).fill_(1)
    flips.load_state({"0": torch.tensor([0b00011111], dtype=torch.uint8)})
    assert flips.rates() == {"0": (3, 3)}


class Binarised(nn.Module):
    """Thresholds for (N, C, H, W), then the activation."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.move = LearnableBias(channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.move(x))


def counts(model: nn.Module, *inputs: Tensor) -> dict[str, tuple[int, int]]:
    with DeadChannels(model) as dead, torch.no_grad():
        for x in inputs:
            model(x)
    return dead.counts(Processes.single())


@pytest.mark.parametrize("activation", [BinaryActivation, TernaryActivation])
@pytest.mark.parametrize("training", [False, True])
def test_dead_by_a_large_bias(activation: type[nn.Module], training: bool) -> None:
    """Breaks if channels that a threshold far off holds at +1 or -1 are not found, or others are."""
    model = Binarised(6, activation()).train(training)
    x = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    assert counts(model, x) == {"activation": (0, 6)}
    with torch.no_grad():
        model.move.bias[0, 1] = 100
        model.move.bias[0, 4] = -100
    assert counts(model, x) == {"activation": (2, 6)}


def test_ternary_values() -> None:
    """Breaks if a channel stuck at 0 passes for alive, or one that takes two of three values for dead."""
    x = torch.tensor(
        [[0.1, -0.2, 0.3], [0.1, 0.9, 0.1], [0.1, 0.1, -0.9], [0.9, -0.9, 0.9], [0.9, 0.8, 0.7], [-0.9, 0, 0.9]]
    )
    # Values of a channel over three images.
    assert counts(nn.Sequential(TernaryActivation()), x.T.reshape(3, 6, 1, 1)) == {"0": (2, 6)}
    assert counts(nn.Sequential(TernaryActivation()), x.T) == {"0": (2, 6)}


def test_change_anywhere_is_life() -> None:
    """Breaks if a channel is called dead that changes only between positions, images, batches or calls."""
    model = nn.Sequential(BinaryActivation())
    plus, minus = torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)
    position = plus.clone()
    position[0, 0, 1, 1] = -1
    assert counts(model, plus) == counts(model, plus, plus) == {"0": (1, 1)}
    assert counts(model, position) == {"0": (0, 1)}
    assert counts(model, torch.cat([plus, minus])) == {"0": (0, 1)}
    assert counts(model, plus, minus) == {"0": (0, 1)}

    activation = BinaryActivation()
    assert counts(nn.Sequential(activation, LearnableBias(1), activation), plus) == {"0": (1, 1)}
    turned = nn.Sequential(activation, LearnableBias(1), activation)
    with torch.no_grad():
        cast(nn.Parameter, turned[1].bias).fill_(-2)
    assert counts(turned, plus) == {"0": (0, 1)}


def test_real_activations_cannot_be_dead() -> None:
    """Breaks if a step without binary activations reports on them, or an activation that was not called is dead."""
    model = Binarised(2, BinaryActivation())
    set_precision(model, activations="real", weights="real")
    assert counts(model, torch.ones(1, 2, 1, 1)) == {}
    set_precision(model, activations="binary", weights="real")
    assert counts(model) == {}


def test_nothing_stays_hooked() -> None:
    """Breaks if an evaluation slows down all training after it, or keeps the activations of its images alive."""
    model = Binarised(3, BinaryActivation())
    outputs: list[weakref.ref[Tensor]] = []
    look = model.activation.register_forward_hook(lambda module, inputs, y: outputs.append(weakref.ref(y)))
    with DeadChannels(model) as dead:
        model(torch.randn(2, 3, 4, 4))
        assert len(model.activation._forward_hooks) == 2
        assert outputs and outputs[0]() is None
    look.remove()
    assert not model.activation._forward_hooks
    kept = [tensor for tensor in dead._seen.values() if tensor is not None]
    assert [(tensor.dtype, tuple(tensor.shape)) for tensor in kept] == [(torch.bool, (3, 3))]
    with pytest.raises(KeyError), DeadChannels(model):
        raise KeyError
    assert not model.activation._forward_hooks


class PairOfProcesses:
    """Two threads that add up tensors as two processes would."""

    count = 2
    device = torch.device("cpu")

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=60)
        self._tensors: dict[int, Tensor] = {}

    def total(self, tensor: Tensor) -> Tensor:
        self._tensors[threading.get_ident()] = tensor
        self._barrier.wait()
        one, two = self._tensors.values()
        assert one.shape == two.shape and one.dtype == two.dtype
        self._barrier.wait()
        return one + two


@pytest.mark.parametrize("empty", [False, True])
def test_processes_see_each_other(empty: bool) -> None:
    """Breaks if a channel that is +1 in one process and -1 in the other is dead, or a process without images hangs."""
    processes = PairOfProcesses()
    # The second channel is +1 in one process and -1 in the other, the first +1 in both.
    shares = [[torch.tensor([[1.0, 1.0]])], [] if empty else [torch.tensor([[2.0, -3.0]])]]
    found: dict[int, dict[str, tuple[int, int]]] = {}

    def work(rank: int) -> None:
        model = nn.Sequential(BinaryActivation(), nn.Identity(), BinaryActivation())
        with DeadChannels(model) as dead:
            for x in shares[rank]:
                model(x)
        found[rank] = dead.counts(cast(Processes, processes))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == {path: (2 if empty else 1, 2) for path in ("0", "2")}


@pytest.mark.parametrize("name", ["bimlp_tiny", "bcdnet_tiny"])
def test_real_models(name: str) -> None:
    """Breaks if a binary layer or a binarisation of a real model is not watched."""
    torch.manual_seed(0)
    model = build_model(name, num_classes=10).eval()
    flips = SignFlips(model).rates()
    watched = counts(model, torch.randn(2, *input_shape(name)))
    paths: dict[str, nn.Module] = dict(model.named_modules())
    assert set(flips) == {path for path, each in paths.items() if isinstance(each, BinaryConv2d | BinaryLinear)}
    assert set(watched) == {
        path for path, each in paths.items() if isinstance(each, BinaryActivation | TernaryActivation)
    }
    assert all(flipped == 0 and weights > 0 for flipped, weights in flips.values())
    # BiMLP's reweighting sees one mean for each image: fresh, all its channels are dead on noise.
    alive = {path for path, (dead, channels) in watched.items() if dead < channels}
    assert {path for path in watched if "reweight" not in path} <= alive
