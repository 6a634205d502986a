"""Gradients of every binary layer against the papers' formulas, evaluated by numpy in float64.

All values are small multiples of 1/8, so that sums of their products are exact in float64 in any order; only the weight
scales, means over counts that are no powers of two, round. Multiples of 1/8 include the boundaries -1, 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from bnn_deploy.models.bimlp_layers import MLP, Variant, WaveBlock
from bnn_deploy.models.blocks import MobileBlock, ResidualBlock, ShiftBlock
from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    FlatBinaryConv2d,
    Scaling,
    TernaryActivation,
)
from bnn_deploy.models.precision import Precision, set_precision
from bnn_deploy.models.random_weights import randomise

Array = NDArray[np.float64]
UNIT = 2.0**-53
BOUNDARIES = [np.nextafter(edge, side) for edge in (-1.0, -0.5, 0.0, 0.5, 1.0) for side in (-2.0, edge, 2.0)]
# The largest abs(weight) and abs(gradient of an output) that ``eighths`` makes.
LARGEST = 1.5


def eighths(random: np.random.RandomState, *shape: int) -> Array:
    return random.randint(-12, 13, shape) / 8


def clip_formula(x: Array) -> Array:
    """BiMLP Eq. 3: the gradient passes where abs(x) <= 1."""
    return np.where(np.abs(x) <= 1, 1.0, 0.0)


def polynomial_formula(x: Array) -> Array:
    """BCDNet Eq. 2, which is Bi-Real Net's: 2 + 2x on [-1, 0), 2 - 2x on [0, 1), 0 elsewhere."""
    return np.select([(x >= -1) & (x < 0), (x >= 0) & (x < 1)], [2 + 2 * x, 2 - 2 * x], 0.0)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (BinaryActivation("clip"), clip_formula),
        (BinaryActivation("polynomial"), polynomial_formula),
        (TernaryActivation(), clip_formula),
    ],
    ids=["clip", "polynomial", "ternary"],
)
@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.one_of(st.sampled_from(BOUNDARIES), st.floats(-3, 3)), min_size=1, max_size=20),
    seed=st.integers(0, 2**31),
)
def test_activation(activation: nn.Module, formula: Callable[[Array], Array], values: list[float], seed: int) -> None:
    """Breaks when training follows another straight-through estimator than the papers', above all at -1, 0 and 1."""
    upstream = eighths(np.random.RandomState(seed), len(values))
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    activation.train()(x).backward(torch.from_numpy(upstream))
    # Two roundings each: 2 - 2 abs(x), and the product with the gradient from above. 2 x is exact, 2 + 2 x and
    # 2 - 2 abs(x) are the same sum, so the first rounding is the same one and the results are equal.
    np.testing.assert_array_equal(x.grad.numpy(), upstream * formula(np.array(values)))


def convolution_by_loops(layer: BinaryConv2d, weight: Array, x: Array, upstream: Array) -> tuple[Array, Array, Array]:
    """(outputs, gradient of x, gradient of the real weights) of a binary convolution, by its definition.

    y = conv(x, s * sign(w)), where s is the mean of abs(w) and has no gradient itself; dL/dx uses s * sign(w), dL/dw is
    that of s * sign(w) where abs(w) <= 1 (BiMLP Eq. 3), else 0.
    """
    magnitude = {"channel": np.abs(weight).mean((1, 2, 3), keepdims=True), "tap": np.abs(weight).mean(1, keepdims=True)}
    binary = np.where(weight > 0, 1.0, -1.0) * magnitude.get(layer.scaling, 1.0)
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel_size, layer.stride, layer.padding
    per_group, outputs = weight.shape[1], weight.shape[0] // layer.groups
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y, dx, dw = np.zeros(upstream.shape), np.zeros(padded.shape), np.zeros(weight.shape)
    for o, i, j in np.ndindex(*upstream.shape[1:]):
        first = o // outputs * per_group
        place = (slice(None), slice(first, first + per_group), slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
        above = upstream[:, o, i, j].reshape(-1, 1, 1, 1)
        y[:, o, i, j] = (padded[place] * binary[o]).sum((1, 2, 3))
        dx[place] += above * binary[o]
        dw[o] += (above * padded[place]).sum(0)
    height, width = x.shape[2:]
    return y, dx[:, :, ph : ph + height, pw : pw + width], dw * clip_formula(weight)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([BinaryConv2d, FlatBinaryConv2d]),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 4),
    outputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    scaling=st.sampled_from(["channel", "tap", "none"]),
    seed=st.integers(0, 2**31),
)
def test_convolution(
    kind: type[BinaryConv2d],
    groups: int,
    per_group: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    scaling: Scaling,
    seed: int,
) -> None:
    """Breaks when a gradient ignores groups, strides, padding, the clipping at +-1 or the scale, or flows through it."""
    random = np.random.RandomState(seed)
    layer = kind(groups * per_group, groups * outputs, kernel, stride, padding, groups, scaling).double().train()
    (parameter,) = layer.parameters()
    weight = eighths(random, *layer.weight_shape)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(weight).reshape(parameter.shape))
    x = random.randint(-1, 2, (2, groups * per_group, 4, 5)).astype(np.float64)
    leaf = torch.from_numpy(x).requires_grad_()
    found = layer(leaf)
    upstream = eighths(random, *found.shape)
    found.backward(torch.from_numpy(upstream))

    y, dx, dw = convolution_by_loops(layer, weight, x, upstream)
    # The scale is at most 1.5 and enters all terms alike; its mean of exact sums rounds once, each product with it twice,
    # and n terms are added with n - 1 roundings, here and in torch: 2 (n + 3) UNIT of the sum of the terms' magnitudes.
    # No scale, no rounding.
    scaled = 0 if scaling == "none" else 2 * UNIT
    forward_terms, backward_terms = per_group * kernel[0] * kernel[1], outputs * kernel[0] * kernel[1]
    np.testing.assert_allclose(
        found.detach().numpy(), y, rtol=0, atol=scaled * (forward_terms + 3) * forward_terms * LARGEST
    )
    np.testing.assert_allclose(
        leaf.grad.numpy(), dx, rtol=0, atol=scaled * (backward_terms + 3) * backward_terms * LARGEST**2
    )
    # No scale takes part in the gradient of the weights: exact.
    np.testing.assert_array_equal(parameter.grad.numpy().reshape(weight.shape), dw)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.integers(1, 3), max_size=2),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 5),
    seed=st.integers(0),
)
def test_linear(rows: list[int], inputs: int, outputs: int, seed: int) -> None:
    """Breaks when BinaryLinear's gradients ignore the clipping at +-1 or the scale, or flow through the scale."""
    random = np.random.RandomState(seed % 2**32)
    layer = BinaryLinear(inputs, outputs).double().train()
    weight, x = eighths(random, outputs, inputs), random.randint(-1, 2, (*rows, inputs)).astype(np.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    leaf = torch.from_numpy(x).requires_grad_()
    found = layer(leaf)
    upstream = eighths(random, *found.shape)
    found.backward(torch.from_numpy(upstream))

    binary = np.where(weight > 0, 1.0, -1.0) * np.abs(weight).mean(1, keepdims=True)
    # As for the convolution: n terms of at most 1.5 times the gradient from above, each with three roundings of its own.
    np.testing.assert_allclose(
        found.detach().numpy(), x @ binary.T, rtol=0, atol=2 * UNIT * (inputs + 3) * inputs * LARGEST
    )
    np.testing.assert_allclose(
        leaf.grad.numpy(), upstream @ binary, rtol=0, atol=2 * UNIT * (outputs + 3) * outputs * LARGEST**2
    )
    expected = upstream.reshape(-1, outputs).T @ x.reshape(-1, inputs) * clip_formula(weight)
    np.testing.assert_array_equal(layer.weight.grad.numpy(), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [BinaryConv2d, FlatBinaryConv2d])
def test_real_convolution_is_torchs(kind: type[BinaryConv2d], training: bool) -> None:
    """Breaks when a convolution of real weights still scales, clips or takes signs anywhere, or in one mode only."""
    torch.manual_seed(0)
    layer = kind(4, 6, (2, 3), (1, 2), (1, 0), groups=2, scaling="tap").train(training)
    (parameter,) = layer.parameters()
    with torch.no_grad():
        parameter.mul_(20)
    set_precision(layer, activations="binary", weights="real")
    plain = nn.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), groups=2, bias=False)
    with torch.no_grad():
        plain.weight.copy_(parameter.reshape(plain.weight.shape))
    x = torch.randn(2, 4, 5, 7)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = layer(mine), plain(theirs)
    upstream = torch.randn(expected.shape)
    found.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(found, expected)
    assert torch.equal(mine.grad, theirs.grad)
    assert torch.equal(parameter.grad.reshape(plain.weight.shape), plain.weight.grad)


@pytest.mark.parametrize("training", [True, False])
def test_real_linear_and_activations_are_torchs(training: bool) -> None:
    """Breaks when a linear layer of real weights still takes signs, or a real activation changes values or gradients."""
    torch.manual_seed(0)
    layer = nn.Sequential(BinaryActivation("polynomial"), TernaryActivation(), BinaryLinear(5, 3)).train(training)
    set_precision(layer, activations="real", weights="real")
    weight = (layer[2].weight.detach() * 20).requires_grad_()
    with torch.no_grad():
        layer[2].weight.mul_(20)
    x = torch.randn(2, 4, 5) * 2
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = layer(mine), F.linear(theirs, weight)
    upstream = torch.randn(expected.shape)
    found.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(found, expected)
    assert torch.equal(mine.grad, theirs.grad)
    assert torch.equal(layer[2].weight.grad, weight.grad)


WIDTH = 16
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "shift": lambda: ShiftBlock(WIDTH),
    "residual": lambda: ResidualBlock(WIDTH, 24, 3, stride=2),
    "residual, data-dependent": lambda: ResidualBlock(WIDTH, WIDTH, 3, data_dependent=True),
    "mobile": lambda: MobileBlock(WIDTH, WIDTH, 2),
    "mobile, flat weights": lambda: MobileBlock(WIDTH, 2 * WIDTH, 1, convolution=FlatBinaryConv2d),
    "mobile, data-dependent": lambda: MobileBlock(WIDTH, 2 * WIDTH, 1, data_dependent=True),
    "mlp": lambda: MLP(WIDTH, 4 * WIDTH, WIDTH, Variant()),
    "wave": lambda: WaveBlock(WIDTH, 4, Variant()),
    "wave, released": lambda: WaveBlock(WIDTH, 4, Variant(True, "tap", True, True)),
}
# Thresholds whose activation is real, followed by a 1x1 layer and BN alone: they shift all positions of a channel alike,
# which BN takes away again.
_OF_MLP = {"move1.bias", "move2.bias"}
_OF_WAVE = {f"{mlp}.{name}" for mlp in ("attn.reweight", "mlp") for name in _OF_MLP}
WITHOUT_EFFECT_IF_REAL = {
    "shift": {"move0.bias"},
    "mobile": {"move21.bias"},
    "mobile, flat weights": {"move21.bias"},
    "mobile, data-dependent": {"emb2.w1.bias", "emb2.w2.bias"},
    "mlp": _OF_MLP,
    "wave": _OF_WAVE,
    "wave, released": _OF_WAVE,
}


@pytest.mark.parametrize("activations", ["binary", "real"])
@pytest.mark.parametrize("weights", ["binary", "real"])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_of_a_block_learns(block: str, weights: Precision, activations: Precision) -> None:
    """Breaks when some parameter gets no gradient, NaN or zero in a step of the recipe, and so would never be trained.

    Two kinds have none by definition: BCDNet-B's w3.bias is added to every position before BN, which takes it away again,
    and so are the thresholds of ``WITHOUT_EFFECT_IF_REAL``.
    """
    torch.manual_seed(0)
    model = BLOCKS[block]()
    # As built, the weights of WaveBlock's depthwise branches are zero, and so are the gradients within these branches.
    randomise(model, seed=0)
    model.double().train()
    set_precision(model, activations=activations, weights=weights)
    y = model(torch.randn(8, WIDTH, 4, 6, dtype=torch.float64))
    y.backward(torch.randn_like(y))
    without_effect = WITHOUT_EFFECT_IF_REAL.get(block, set()) if activations == "real" else set()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        largest = float(parameter.grad.abs().max())
        if name in without_effect or name.endswith("w3.bias"):
            # A sum of 8 x 4 x 6 terms, each below 1e3 and rounded some tens of times: 192 * 1e3 * 30 * 1e-16 < 1e-9.
            assert largest < 1e-9, (name, largest)
        else:
            # What is not zero here is some 0.01 to 100.
            assert largest > 1e-5, (name, largest)
