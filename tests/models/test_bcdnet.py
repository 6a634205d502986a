"""BCDNet and ReActNet: rolls, data-dependent thresholds, the two heads, and the sizes they take."""

from __future__ import annotations

import pytest
import torch

from bnn_deploy.errors import InputError
from bnn_deploy.metadata.calibration import calibration_inputs
from bnn_deploy.models.bcdnet import BCDNET_TINY, BCDNet
from bnn_deploy.models.blocks import DataDependentThreshold, MobileBlock, roll_quarters
from bnn_deploy.models.calibration import calibrate
from bnn_deploy.models.random_weights import randomise
from bnn_deploy.models.registry import build_model


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("size", [(4, 5), (1, 2)])
def test_roll_quarters(step: int, size: tuple[int, int]) -> None:
    """Fails if a quarter moved the wrong way or a border did not wrap around."""
    height, width = size
    x = torch.randn(1, 8, height, width, generator=torch.Generator().manual_seed(0))
    rolled = roll_quarters(x, step)
    for channel, (di, dj) in enumerate([(-1, 0)] * 2 + [(1, 0)] * 2 + [(0, -1)] * 2 + [(0, 1)] * 2):
        for i in range(height):
            for j in range(width):
                source = x[0, channel, (i + di * step) % height, (j + dj * step) % width]
                assert rolled[0, channel, i, j] == source


def test_data_dependent_threshold() -> None:
    """Fails if beta were added instead of subtracted, or alpha were not made from the global average."""
    layer = DataDependentThreshold(4, 8)
    x = torch.randn(2, 4, 3, 5)
    shifted, gamma = layer(x)
    alpha = x.double().mean(dim=(2, 3)) @ layer.w1.weight.double().T + layer.w1.bias
    beta = alpha @ layer.w2.weight.double().T + layer.w2.bias
    # One element of alpha, then four-term sums of values of order 1 in float32.
    torch.testing.assert_close(shifted.double(), x.double() - beta[:, :, None, None], rtol=0, atol=1e-5)
    expected = alpha @ layer.w3.weight.double().T + layer.w3.bias
    torch.testing.assert_close(gamma.double(), expected[:, :, None, None], rtol=0, atol=1e-5)


def test_gamma_comes_before_batch_norm() -> None:
    """Fails if BCDNet-B's gamma were added after BN, or its halves went to the wrong 1x1 convolutions."""
    block = MobileBlock(4, 8, 1, data_dependent=True)
    randomise(block, 0)
    block.eval()
    x = torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        plain = block._pointwise(x)
        block.emb2.w3.bias += torch.arange(8.0)
        moved = block._pointwise(x)
        norms = (block.bn2_1, block.bn2_2)
        gains = torch.cat([norm.weight / (norm.running_var + norm.eps).sqrt() for norm in norms])
    expected = (gains * torch.arange(8.0)).reshape(1, 8, 1, 1).expand_as(plain)
    # Differences of values below 20 in float32: 20 * 2**-23 each.
    torch.testing.assert_close(moved - plain, expected, rtol=0, atol=1e-5)


def test_output_is_the_mean_of_two_heads() -> None:
    """Fails if inference used one head only."""
    model = build_model("bcdnet_tiny", num_classes=3)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        first, second = model.heads(x)
        assert torch.equal(model(x), (first + second) / 2)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("data_dependent", [False, True])
def test_every_parameter_trains(data_dependent: bool) -> None:
    """Fails if a parameter of the CNN or MLP stage were cut off from the loss."""
    torch.manual_seed(0)
    model = BCDNet(BCDNET_TINY, num_classes=3, data_dependent=data_dependent)
    randomise(model, 0)
    calibrate(model, calibration_inputs(0, 4, (3, 32, 32)))
    model.train()
    torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0])).backward()
    untrained = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not untrained
    silent = {name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0}
    # BN subtracts whatever is constant over a channel, so gamma's bias cannot matter while training.
    assert {name for name in silent if not name.endswith("w3.bias")} == set()


@pytest.mark.parametrize(("name", "size"), [("bcdnet_a", 48), ("reactnet_r18", 100), ("bcdnet_tiny", 4)])
def test_sizes_that_do_not_halve_are_refused(name: str, size: int) -> None:
    """Fails if a size whose shortcut and convolution differ in shape ended in PyTorch's own error."""
    with pytest.raises(InputError, match=f"{size}x{size}"):
        build_model(name, input_size=size)
    with pytest.raises(InputError, match=f"{size}x{size}"):
        build_model(name)(torch.zeros(1, 3, size, size))


@pytest.mark.parametrize("name", ["bcdnet_a", "bcdnet_b", "bcdnet_a_r18", "bcdnet_b_r18", "reactnet_a", "reactnet_r18"])
def test_smallest_size_and_other_class_counts(name: str) -> None:
    """Fails if a model ran at its default size and class count only."""
    with torch.no_grad():
        assert build_model(name, num_classes=7, input_size=32)(torch.zeros(2, 3, 32, 64)).shape == (2, 7)
