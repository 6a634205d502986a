"""The real-valued ResNets: torchvision's names and sizes, and that the tiny one learns."""

from __future__ import annotations

import pytest
import torch

from bnn_deploy.data.digits import load_digits_split
from bnn_deploy.errors import InputError
from bnn_deploy.models.float_resnet import TEACHER_NAMES, build_teacher

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_names(depths: tuple[int, ...], convolutions: int) -> set[str]:
    """The names in torchvision's weight files, by their documented scheme layer<stage>.<block>.conv<n> and so on."""

    def norm(prefix: str) -> set[str]:
        return {f"{prefix}.{name}" for name in BATCH_NORM}

    names = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for stage, depth in enumerate(depths, start=1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            for number in range(1, convolutions + 1):
                names |= {f"{prefix}.conv{number}.weight"} | norm(f"{prefix}.bn{number}")
            # Where the shape changes: stages 2 to 4, and stage 1 of bottlenecks, which goes from 64 to 256 channels.
            if block == 0 and (stage > 1 or convolutions == 3):
                names |= {f"{prefix}.downsample.0.weight"} | norm(f"{prefix}.downsample.1")
    return names


@pytest.mark.parametrize(
    ("name", "depths", "convolutions", "parameters"),
    # Parameters as torchvision's documentation gives them for its weights.
    [
        ("resnet18", (2, 2, 2, 2), 2, 11_689_512),
        ("resnet34", (3, 4, 6, 3), 2, 21_797_672),
        ("resnet50", (3, 4, 6, 3), 3, 25_557_032),
    ],
)
def test_names_and_sizes_are_torchvisions(
    name: str, depths: tuple[int, ...], convolutions: int, parameters: int
) -> None:
    """Breaks when torchvision's weight files, the only pretrained teachers there are, no longer load."""
    with torch.device("meta"):
        model = build_teacher(name, 3, 1000)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert set(model.state_dict()) == torchvision_names(depths, convolutions)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    if name == "resnet50":
        # The stride is in the 3x3 convolution, which the weights of torchvision's files were trained with.
        assert model.layer2[0].conv1.stride == (1, 1)
        assert model.layer2[0].conv2.stride == (2, 2)


def test_files_without_counts_of_batches_load() -> None:
    """Breaks when torchvision's older files, written before BN counted its batches, no longer load."""
    model = build_teacher("resnet_tiny", 3, 10)
    state = {name: value + 1 for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    model.load_state_dict(state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", TEACHER_NAMES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_any_images(name: str, shape: tuple[int, int, int]) -> None:
    """Breaks when a teacher refuses the images of the tiny models, or is not handed over in evaluation mode."""
    model = build_teacher(name, shape[0], 7)
    assert not model.training
    assert model(torch.zeros(1, *shape)).shape == (1, 7)
    with pytest.raises(InputError, match=f"shape \\(N, {shape[0]}, height, width\\)"):
        model(torch.zeros(1, 2, 8, 8))


def test_tiny_learns_the_digits() -> None:
    """Breaks when the teacher of the shipped recipes for the digits knows too little to teach."""
    torch.manual_seed(0)
    model = build_teacher("resnet_tiny", 1, 10).train()
    x_train, y_train, x_test, y_test = (torch.from_numpy(array) for array in load_digits_split())
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
    for _ in range(3):
        for batch in torch.randperm(len(x_train)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = float((model.eval()(x_test).argmax(dim=1) == y_test).float().mean())
    # Three epochs gave 0.96 to 0.98 for seeds 0 to 3; guessing gives 0.1.
    assert accuracy > 0.9


def test_impossible_teachers_are_refused() -> None:
    """Breaks when a misspelt teacher ends in a traceback."""
    with pytest.raises(InputError, match="no teacher 'resnet101'; choose one of resnet18, resnet34"):
        build_teacher("resnet101", 3, 10)
    with pytest.raises(InputError, match="0 classes"):
        build_teacher("resnet18", 3, 0)
