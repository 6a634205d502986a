"""The binary layers: values, scales, padding and straight-through gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import InputError
from bnn_deploy.models.layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    FlatBinaryConv2d,
    RPReLU,
    TernaryActivation,
)

SPECIAL = [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-45, -1e-45, 0.5, -0.5, 0.50000006, -0.50000006, 1.0]


@pytest.mark.parametrize("training", [False, True])
def test_sign_of_special_values(training: bool) -> None:
    """Fails if zero, -0.0 or NaN gave anything but -1, in training or in evaluation."""
    activation = BinaryActivation().train(training)
    expected = [1.0 if value > 0 else -1.0 for value in SPECIAL]
    assert activation(torch.tensor(SPECIAL)).tolist() == expected


@pytest.mark.parametrize("training", [False, True])
def test_ternary_of_special_values(training: bool) -> None:
    """Fails if the half-way values left zero, or the activation differed from rint(clip(x, -1, 1))."""
    activation = TernaryActivation().train(training)
    expected = np.nan_to_num(np.rint(np.clip(np.float32(SPECIAL), -1, 1)))
    assert activation(torch.tensor(SPECIAL)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("activation", "derivative"),
    [
        (BinaryActivation("clip"), lambda x: 1.0 if -1 <= x <= 1 else 0.0),
        (TernaryActivation(), lambda x: 1.0 if -1 <= x <= 1 else 0.0),
        # Bi-Real Net: d/dx of 2x + x^2 on [-1, 0) and of 2x - x^2 on [0, 1).
        (BinaryActivation("polynomial"), lambda x: (2 + 2 * x if x < 0 else 2 - 2 * x) if -1 <= x < 1 else 0.0),
    ],
)
def test_activation_gradient(activation: torch.nn.Module, derivative) -> None:
    """Fails if training followed another straight-through estimator than the papers'."""
    x = torch.linspace(-2, 2, 65, requires_grad=True)
    weight = torch.linspace(1, 3, 65)
    activation.train()
    (activation(x) * weight).sum().backward()
    expected = [derivative(value) * factor for value, factor in zip(x.tolist(), weight.tolist(), strict=True)]
    # All values are multiples of 1/16 with few digits: the products are exact up to one rounding of weight.
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=2e-7)


def test_weight_gradient() -> None:
    """Fails if the gradient reached weights beyond +-1, or was multiplied by the scale, or flowed through the scale."""
    layer = BinaryConv2d(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.25, -1.5]).reshape(1, 2, 1, 1))
    layer(torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)).backward()
    assert layer.weight.grad.flatten().tolist() == [1.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    per_group=st.integers(1, 5),
    outputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    scaling=st.sampled_from(["channel", "tap", "none"]),
    seed=st.integers(0, 2**31),
)
def test_convolution_against_loops(groups, per_group, outputs, kernel, stride, padding, scaling, seed) -> None:
    """Fails if groups, strides, zero padding, the sign of a zero weight or the scale differed from their definition."""
    random = np.random.RandomState(seed)
    layer = BinaryConv2d(groups * per_group, groups * outputs, kernel, stride, padding, groups, scaling).eval()
    # Weights are multiples of 1/8 and some are zero, so that means of them and all sums are exact enough to compare.
    weight = random.randint(-3, 4, layer.weight_shape) / 8
    x = random.randint(-1, 2, (2, groups * per_group, 5, 6)).astype(np.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        found = layer(torch.from_numpy(x).float()).numpy()

    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    height, width = (padded.shape[2] - kh) // sh + 1, (padded.shape[3] - kw) // sw + 1
    expected = np.zeros((2, groups * outputs, height, width))
    magnitude = {"channel": np.abs(weight).mean((1, 2, 3), keepdims=True), "tap": np.abs(weight).mean(1, keepdims=True)}
    signs = np.where(weight > 0, 1, -1) * magnitude.get(scaling, 1.0)
    for o, i, j in np.ndindex(groups * outputs, height, width):
        first = o // outputs * per_group
        window = padded[:, first : first + per_group, i * sh : i * sh + kh, j * sw : j * sw + kw]
        expected[:, o, i, j] = (window * signs[o]).sum((1, 2, 3))
    # The scale has one rounding, each of up to 60 products and sums another: 60 * 2**-24 * 60 * 0.375 < 1e-4.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    if scaling == "none":
        np.testing.assert_array_equal(found, expected)


def test_evaluation_equals_training_for_convolution_and_linear() -> None:
    """Fails if a trained layer computed something else once it is deployed."""
    torch.manual_seed(0)
    x = BinaryActivation()(torch.randn(2, 6, 5, 5))
    for layer in (BinaryConv2d(6, 4, 3, padding=1), BinaryConv2d(6, 3, (1, 5), groups=3, scaling="tap")):
        training = layer.train()(x)
        # 54 terms below 0.2 in another order: 54 * 2**-24 * 54 * 0.2 < 4e-5.
        torch.testing.assert_close(layer.eval()(x), training, rtol=0, atol=4e-5)
    linear = BinaryLinear(5, 3)
    training = linear.train()(x)
    torch.testing.assert_close(linear.eval()(x), training, rtol=0, atol=4e-5)
    expected = x @ torch.where(linear.weight > 0, 1.0, -1.0).T * linear.weight.abs().mean(1)
    torch.testing.assert_close(linear(x), expected, rtol=0, atol=4e-5)


def test_flat_weights_are_the_same_convolution() -> None:
    """Fails if ReActNet-A's flattened weights were read in another order than row-major (out, in, kh, kw)."""
    plain, flat = BinaryConv2d(3, 4, 3), FlatBinaryConv2d(3, 4, 3)
    with torch.no_grad():
        flat.weights.copy_(plain.weight.reshape(-1, 1))
    assert flat.weights.shape == (108, 1)
    assert torch.equal(flat.binary_weight(), plain.binary_weight())
    assert torch.equal(flat.weight_scale(), plain.weight_scale())


def test_rprelu() -> None:
    """Fails if the two biases or the slope of RPReLU were swapped."""
    layer = RPReLU(1)
    with torch.no_grad():
        layer.move1.bias.fill_(1)
        layer.act.w.fill_(0.5)
        layer.move2.bias.fill_(4)
    assert layer(torch.tensor([-3.0, 1.0]).reshape(2, 1, 1, 1)).flatten().tolist() == [3.0, 6.0]


def test_impossible_groups_are_refused() -> None:
    """Fails if channels that do not divide into groups were accepted."""
    with pytest.raises(InputError, match="4 groups"):
        BinaryConv2d(6, 8, groups=4)
