"""Which parameters decay, the schedule against its formulas, and the moving average."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn_deploy.models.float_resnet import build_teacher
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear, LearnableBias
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.models.registry import build_model
from bnn_deploy.training.averaging import Average
from bnn_deploy.training.optimisation import learning_rate, make_optimizer, parameter_groups, set_learning_rate
from bnn_deploy.training.recipe import load_recipe, recipe_names
from bnn_deploy.training.step import TEACHER_NAMES, Step

STEP = Step("binary", epochs=10, batch_size=4, learning_rate=0.01)
EPSILON = 2.0**-52


def on_no_device(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_teacher(name, 3, 10) if name in TEACHER_NAMES else build_model(name, num_classes=10)


def is_weight(parameter: Tensor) -> bool:
    """By shape alone: several numbers for each output. Thresholds and BiMLP's slopes are (1, C, 1, 1)."""
    return parameter.dim() >= 2 and tuple(parameter.shape) != (1, parameter.shape[1], 1, 1)


@pytest.mark.parametrize("name", [*MODEL_NAMES, *TEACHER_NAMES])
def test_weights_decay_and_nothing_else(name: str) -> None:
    """Breaks if a threshold, slope, bias or normalisation decays, a weight does not, or a parameter is not trained."""
    model = on_no_device(name)
    decaying, others = parameter_groups(model)
    assert sorted(name for name, _ in decaying + others) == sorted(name for name, _ in model.named_parameters())
    assert all(parameter is model.get_parameter(name) for name, parameter in decaying + others)
    assert {name for name, _ in decaying} == {name for name, each in model.named_parameters() if is_weight(each)}
    assert decaying and others
    everything, nothing = parameter_groups(model, decay_all=True)
    assert [name for name, _ in everything] == [name for name, _ in model.named_parameters()] and not nothing


def test_shared_parameter_is_trained_once() -> None:
    """Breaks if a weight that two layers share is stepped twice, or counted as both decaying and not."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    decaying, others = parameter_groups(model)
    assert [name for name, _ in decaying] == ["0.weight"]
    assert [name for name, _ in others] == ["0.bias", "1.bias"]


def stepped(step: Step) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters before and after one optimizer step of a model all of whose gradients are 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        LearnableBias(4), BinaryConv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), BinaryLinear(4, 2)
    )
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    make_optimizer(model, step).step()
    return before, {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
@pytest.mark.parametrize("decay_all", [False, True])
def test_decay(optimizer: Any, decay_all: bool) -> None:
    """Breaks if decay reaches what is excluded from it, or is not the optimizer's own: decoupled, or Adam's L2 penalty."""
    step = replace(STEP, weight_decay=0.1, optimizer=optimizer, decay_all=decay_all)
    before, after = stepped(step)
    for name, parameter in after.items():
        if not decay_all and name not in ("1.weight", "3.weight", "4.weight"):
            assert torch.equal(parameter, before[name]), name
            continue
        # AdamW multiplies by 1 - 0.01 * 0.1; Adam sees a gradient of 0.1 * parameter and takes a step of lr against its
        # sign, short by a share of 1e-8 / 0.05 = 2e-7. Each result is rounded at most 3 times, at magnitudes below 1, by at
        # most 2^-24 each; the factor 0.999 is itself no float32: 2^-24 more.
        expected = before[name] * 0.999 if optimizer == "adamw" else before[name] - 0.01
        assert float((parameter - expected).abs().max()) <= 5 * 2**-24 + 0.01 * 2e-7, name
    assert not torch.equal(after["1.weight"], before["1.weight"])


def test_groups_have_names() -> None:
    """Breaks if the state of the optimizer can no longer be stored by parameter name."""
    model = nn.Sequential(LearnableBias(4), BinaryConv2d(4, 4, 3))
    optimizer = make_optimizer(model, STEP)
    named = [
        pair for group in optimizer.param_groups for pair in zip(group["param_names"], group["params"], strict=True)
    ]
    assert [name for name, _ in named] == ["1.weight", "0.bias"]
    assert all(parameter is model.get_parameter(name) for name, parameter in named)
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_latent_weight_beyond_one(weight_decay: float) -> None:
    """Breaks if what make_optimizer says of weights beyond +-1 is not so: no gradient reaches them, only decay."""
    layer = BinaryConv2d(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.5)
    optimizer = make_optimizer(layer, replace(STEP, weight_decay=weight_decay))
    layer.train()(torch.ones(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    # 1.5 * (1 - 0.01 * 0.5), rounded twice near 1.5, where float32 has steps of 2^-23.
    assert abs(layer.weight.item() - 1.5 * (1 - 0.01 * weight_decay)) <= 2 * 2**-24 * 2
    assert (layer.weight.item() == 1.5) == (weight_decay == 0)


def test_warm_up_is_a_line() -> None:
    """Breaks if the warm-up starts or ends elsewhere than the recipe says."""
    step = replace(STEP, warmup_epochs=2, warmup_start=0.2, schedule="cosine")
    # 2 epochs of 5 steps: 0.2 + 0.8 * done / 10, of 0.01. A few roundings each.
    for done, share in ((0, 0.2), (5, 0.6), (9, 0.92), (10, 1.0)):
        assert learning_rate(step, done, 50, 5) == pytest.approx(0.01 * share, rel=8 * EPSILON, abs=0)
    # Half a step more than a whole one.
    assert learning_rate(replace(step, warmup_epochs=0.5), 1, 50, 5) == pytest.approx(
        0.01 * (0.2 + 0.8 / 2), rel=8 * EPSILON, abs=0
    )


def test_cosine() -> None:
    """Breaks if the rate does not fall along half a cosine from the first step after the warm-up to the last."""
    step = replace(STEP, warmup_epochs=2, final_learning_rate=0.002)
    # cos is within an ulp; relative to the rates here, its rounding and that of four operations.
    for done, left in ((10, 1.0), (20, 0.5 + math.sqrt(0.125)), (30, 0.5), (40, 0.5 - math.sqrt(0.125)), (50, 0.0)):
        expected = 0.002 + 0.008 * left
        assert learning_rate(step, done, 50, 5) == pytest.approx(expected, rel=16 * EPSILON, abs=0)


def test_linear_and_constant() -> None:
    """Breaks if ReActNet's line is another one than its code has at the beginning of each epoch, or constant is not."""
    line = replace(STEP, schedule="linear")
    for epoch in range(10):
        assert learning_rate(line, 7 * epoch, 70, 7) == pytest.approx(0.01 * (1 - epoch / 10), rel=8 * EPSILON, abs=0)
    assert learning_rate(line, 70, 70, 7) == 0
    ending = replace(line, final_learning_rate=0.004)
    assert learning_rate(ending, 35, 70, 7) == pytest.approx(0.007, rel=8 * EPSILON, abs=0)
    constant = replace(STEP, schedule="constant", warmup_epochs=1)
    assert [learning_rate(constant, done, 70, 7) for done in (0, 7, 69)] == [0, 0.01, 0.01]


def test_warm_up_of_bcdnet() -> None:
    """Breaks if the shipped recipe's first step is not BCDNet's warm-up: from 1e-3 to 4e-3 over 15000 of 300000 iterations."""
    step = next(step for step in load_recipe("bcdnet_a").steps if step.warmup_start)
    per_epoch = 300_000 // step.epochs
    for done in (0, 1, 7500, 14_999):
        theirs = (4e-3 - 1e-3) / (15_000 - 1) * done + 1e-3
        # Their line is at its end one iteration before ours: 1 / 14999 of its height at most lies between them.
        assert abs(learning_rate(step, done, 300_000, per_epoch) - theirs) <= 3e-3 / 14_999


@settings(max_examples=150, deadline=None)
@given(
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    epochs=st.integers(1, 30),
    per_epoch=st.integers(1, 40),
    warm=st.floats(0, 1),
    start=st.floats(0, 1),
    peak=st.floats(1e-6, 10),
    final=st.floats(0, 1),
)
def test_up_then_down(
    schedule: Any, epochs: int, per_epoch: int, warm: float, start: float, peak: float, final: float
) -> None:
    """Breaks if the rate falls in the warm-up, rises after it, or leaves the range that the recipe gives."""
    step = replace(
        STEP,
        schedule=schedule,
        epochs=epochs,
        learning_rate=peak,
        warmup_epochs=warm * epochs,
        warmup_start=start,
        final_learning_rate=final * peak,
    )
    total = epochs * per_epoch
    rates = [learning_rate(step, done, total, per_epoch) for done in range(total)]
    top = round(warm * epochs * per_epoch)
    # Each rate is the outcome of at most six roundings of numbers of at most `peak`, and a cosine within an ulp.
    slack = 8 * EPSILON * peak
    assert all(later >= earlier - slack for earlier, later in pairwise(rates[: top + 1]))
    assert all(later <= earlier + slack for earlier, later in pairwise(rates[top:]))
    assert all(start * peak - slack <= rate <= peak + slack for rate in rates[:top])
    assert all(final * peak - slack <= rate <= peak + slack for rate in rates[top:])


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_have_a_rate(name: str) -> None:
    """Breaks if a step of a recipe, however short it is made, begins or goes on with a rate that is none."""
    for step in load_recipe(name).with_(epochs=1).steps:
        for done in range(3 if step.epochs else 0):
            assert 0 <= learning_rate(step, done, 3, 3) <= step.learning_rate


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).double()


def trained(model: nn.Sequential, updates: int, average: Average, first: int = 0) -> list[Tensor]:
    """Change the model ``updates`` times in a way that depends on the number of the update; its first weight each time."""
    history = []
    for number in range(first, first + updates):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        model.train()(torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(number), dtype=torch.float64))
        average.update(model)
        history.append(model[0].weight.detach().clone())
    return history


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_average_is_exponential(decay: float) -> None:
    """Breaks if the average forgets faster or slower than the recipe says, or holds the initial weights for long."""
    model = small_model()
    average = Average(model, decay)
    history = trained(model, 40, average)
    expected = history[0]
    for number, weight in enumerate(history[1:], 1):
        kept = min(decay, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * weight
    # 39 steps with at most four roundings each, here and in torch, of numbers below 4.
    assert float((average.model[0].weight - expected).abs().max()) <= 39 * 8 * EPSILON * 4  # type: ignore[index]
    assert not torch.equal(average.model[0].weight, model[0].weight)  # type: ignore[index]


def test_average_takes_statistics_along() -> None:
    """Breaks if the average is tested with the batch normalisation of other weights, or changes the model itself."""
    model = small_model()
    average = Average(model, 0.9)
    before = average.model.state_dict()["1.running_mean"].clone()
    trained(model, 5, average)
    mean = average.model.state_dict()["1.running_mean"]
    assert not torch.equal(mean, before) and not torch.equal(mean, model[1].running_mean)
    assert average.model.state_dict()["1.num_batches_tracked"].item() == 5
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_average_goes_on_bit_for_bit() -> None:
    """Breaks if a resumed run has another average than one that was never stopped."""
    model = small_model()
    whole = Average(model, 0.99)
    trained(model, 3, whole)
    saved = {name: tensor.clone() for name, tensor in whole.state().items()}
    trained(model, 4, whole, first=3)

    # As after a checkpoint: the model is where it was after the third update, its own statistics included.
    again = small_model()
    trained(again, 3, Average(again, 0.99))
    resumed = Average(again, 0.99)
    resumed.load_state(saved)
    trained(again, 4, resumed, first=3)
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in whole.state().items())
    assert whole.state().keys() == resumed.state().keys()
