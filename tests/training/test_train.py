"""What a run leaves: the weights it was asked for, with their true accuracy; and its options do what they say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.models.layers import BinaryActivation, BinaryLinear, LearnableBias
from bnn_deploy.models.registry import build_model
from bnn_deploy.training import runs
from bnn_deploy.training.loader import test_batches as batches_to_test
from bnn_deploy.training.networks import build_network
from bnn_deploy.training.options import Report, TrainOptions
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.recipe import load_recipe
from bnn_deploy.training.records import EpochRecord
from bnn_deploy.training.runs import train
from bnn_deploy.weights.load_checkpoint import load_checkpoint
from bnn_deploy.weights.safetensors_file import read_metadata
from tests.training.tiny_run import BINARY, CNN, MODEL, RECIPE, At, options, tiny_data

ALONE = replace(RECIPE, steps=(replace(BINARY, teacher="", mixup=0.0, epochs=1),))


class Records(Report):
    """Keeps what the run says."""

    def __init__(self) -> None:
        self.records: list[EpochRecord] = []

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)


def quick(report: Report | None = None, **changes: Any) -> TrainOptions:
    """Options without checkpoints inside epochs."""
    return replace(options(report, minutes=1000.0), **changes)


def accuracy(model: nn.Module, data: Any) -> float:
    """Share of the test images that it classifies rightly."""
    images, labels = next(iter(batches_to_test(data.test, batch_size=1000, processes=Processes.single(), workers=0)))
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).double().mean())


def test_what_a_run_leaves(tmp_path: Path) -> None:
    """If this fails, the file to be deployed is not what was trained, or claims an accuracy that it has not."""
    folder, data, report = tmp_path / "run", tiny_data(model="bimlp_tiny"), Records()
    recipe = replace(RECIPE, model="bimlp_tiny", variant="released")
    result = train(recipe, data, folder, quick(report))
    assert [(record.step, record.epoch, record.epochs) for record in report.records] == [
        ("cnn", 1, 1),
        ("binary", 1, 2),
        ("binary", 2, 2),
    ]
    assert result.weights == folder / "weights.safetensors"
    assert result.weights.read_bytes() == (folder / "binary.safetensors").read_bytes()
    model = build_model("bimlp_tiny", variant="released")
    load_checkpoint(model, result.weights)
    assert accuracy(model, data) == result.accuracy == result.steps[-1].accuracy == report.records[-1].test_accuracy
    metadata = read_metadata(result.weights)
    assert json.loads(metadata["bnn_deploy.training"])["accuracy"] == result.accuracy
    assert metadata["bnn_deploy.variant"] == result.variant == "released"
    assert metadata["bnn_deploy.preprocessing"] == data.preprocessing.to_json()
    assert json.loads(metadata["bnn_deploy.class_names"]) == list("0123456789")
    assert read_metadata(folder / "cnn.safetensors")["bnn_deploy.model"] == "resnet_tiny"
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    assert load_recipe(folder / "recipe.toml") == recipe
    assert not {path.name for path in folder.iterdir()} - {
        *("recipe.toml", "checkpoint.safetensors", "cnn.safetensors", "binary.safetensors", "weights.safetensors"),
        *("log.csv", "layers.csv", "result.json"),
    }
    first, _, last = report.records
    assert first.divergence is None and first.flip_rate is None and first.dead_channels is None
    assert last.divergence is not None and last.flip_rate is not None and last.channels > 1000
    a, divergence = BINARY.distillation, last.divergence
    # Three float32 numbers of about 1 each rounded in the loss: 3 * 2**-24 * 3 is below 1e-6.
    assert last.loss == pytest.approx(a * divergence + (1 - a) * last.cross_entropy, abs=1e-6)


def test_the_average_is_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a step with an average is deployed without it."""
    kept: list[Any] = []
    made = runs.StepState

    def state(*arguments: Any) -> Any:
        kept.append(made(*arguments))
        return kept[-1]

    monkeypatch.setattr(runs, "StepState", state)
    result = train(ALONE, tiny_data(), tmp_path / "run", quick())
    saved, (state_of_step,) = load_file(result.weights), kept
    assert torch.equal(saved["fc.bias"], dict(state_of_step.average.model.named_parameters())["fc.bias"])
    assert not torch.equal(saved["fc.bias"], dict(state_of_step.network.named_parameters())["fc.bias"])


def test_a_step_starts_from_an_earlier_one(tmp_path: Path) -> None:
    """If this fails, the second of the papers' steps starts from random weights, and the first was for nothing."""
    first = replace(BINARY, name="first", weights="real", teacher="", epochs=1)
    # So small a rate that nothing moves by more than a rounding: 1e-30 beside weights of 0.1.
    second = replace(BINARY, start="first", teacher="", epochs=1, learning_rate=1e-30, weight_decay=0.0, average=0.0)
    train(replace(RECIPE, steps=(first, second)), tiny_data(), tmp_path / "run", quick())
    before, after = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("first", "binary"))
    weights = [name for name in before if name.endswith("weight") and before[name].dim() > 1]
    assert weights and all(torch.equal(before[name], after[name]) for name in weights)


def test_a_teacher_of_given_weights(tmp_path: Path) -> None:
    """If this fails, given weights are trained over, not used, or weights of another network are taken."""
    data = tiny_data()
    step = replace(CNN, epochs=0)
    recipe = replace(RECIPE, steps=(step, replace(BINARY, epochs=1)))
    with pytest.raises(InputError, match="give its weights with --teacher cnn=FILE"):
        train(recipe, data, tmp_path / "run", quick())
    path = tmp_path / "teacher.pth"
    teacher = build_network(recipe, step, classes=10, preprocessing=data.preprocessing, seed=99)
    torch.save(teacher.state_dict(), path)
    report = At("", 0, 0, lambda: None)
    result = train(recipe, data, tmp_path / "run", quick(report, teachers={"cnn": path}))
    assert result.steps[0].epochs == 0 and result.steps[0].accuracy == accuracy(teacher.eval(), data)
    assert any("'cnn' has given weights" in note for note in report.notes)
    saved = load_file(tmp_path / "run" / "cnn.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in teacher.state_dict().items())
    other = build_network(recipe, step, classes=7, preprocessing=data.preprocessing, seed=99)
    torch.save(other.state_dict(), path)
    with pytest.raises(ModelFileError, match=r"fc\.weight is float 7x64, expected float 10x64"):
        train(recipe, data, tmp_path / "other", quick(teachers={"cnn": path}))


def test_both_heads_learn(tmp_path: Path) -> None:
    """If this fails, one of BCDNet's heads stays random, and half of the deployed logits with it."""
    data = tiny_data()
    step = replace(BINARY, teacher="", epochs=1, average=0.0)
    for steps in ((step,), (CNN, replace(step, teacher="cnn"))):
        folder = tmp_path / str(len(steps))
        result = train(replace(RECIPE, steps=steps), data, folder, quick())
        before = build_network(RECIPE, step, classes=10, preprocessing=data.preprocessing, seed=3).state_dict()
        after = load_file(result.weights)
        assert all(not torch.equal(before[f"{head}.weight"], after[f"{head}.weight"]) for head in ("fc", "fc_dist"))


class _WithoutStatistics(nn.Sequential):
    """(n, 3, 8, 8) to 10 logits by a binary layer and a real one, no part of which looks at other images."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        super().__init__(LearnableBias(3), BinaryActivation(), nn.Flatten(), BinaryLinear(192, 12), nn.Linear(12, 10))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def _losses(folder: Path) -> list[float]:
    with open(folder / "log.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_accumulated_passes_are_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, --accumulate changes the size of the steps rather than only the memory they need.

    The network has no batch normalisation, which would see the smaller batches.
    """
    monkeypatch.setattr(runs, "build_network", lambda *arguments, **options: _WithoutStatistics())
    # Adam alone would hide gradients of another size; an L2 penalty beside them does not.
    step = replace(ALONE.steps[0], batch_size=20, epochs=3, learning_rate=1e-3, optimizer="adam", weight_decay=0.1)
    weights: dict[int, dict[str, Tensor]] = {}
    for parts in (1, 2, 5):
        folder = tmp_path / str(parts)
        result = train(
            replace(ALONE, steps=(step,)), tiny_data(60), folder, quick(precision="float64", accumulate=parts)
        )
        weights[parts] = load_file(result.weights)
    # Gradients below 1 are summed in another order, which costs some 20 roundings of 2**-53, 2e-15. Adam divides by
    # at least its epsilon of 1e-8, so each of 9 steps of at most 1e-3 may go astray by 2e-10; losses follow the weights with
    # a slope of less than 10.
    for parts in (2, 5):
        assert _losses(tmp_path / str(parts)) == pytest.approx(_losses(tmp_path / "1"), abs=2e-8)
        for name, tensor in weights[1].items():
            # Written as float32: half a unit in the last place of numbers below 1 each.
            assert torch.allclose(weights[parts][name], tensor, rtol=0, atol=2e-9 + 2**-24)
    moved = [(weights[1][name] - tensor).abs().max() for name, tensor in _WithoutStatistics().state_dict().items()]
    assert max(moved) > 1e-3


@pytest.mark.parametrize("precision", ["float64", "bfloat16", "float16"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    """If this fails, a precision that is offered does not train at all, or cannot be resumed."""
    recipe = replace(RECIPE, steps=(CNN, replace(BINARY, epochs=1)))
    came: list[int] = []
    asked = quick(At("binary", 1, 1, lambda: came.append(15)), precision=precision, stop=lambda: sum(came))
    with pytest.raises(Exception, match="after 0 epochs and 2 optimizer steps"):
        train(recipe, tiny_data(), tmp_path / "run", asked)
    result = train(recipe, tiny_data(), tmp_path / "run", quick(precision=precision, resume=True))
    tensors = load_file(result.weights)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    model = build_model(MODEL)
    load_checkpoint(model, result.weights)
    # In float32, whatever it was trained in.
    assert accuracy(model, tiny_data()) == result.accuracy


def test_batches_that_cannot_be(tmp_path: Path) -> None:
    """If this fails, a run ends in a traceback of torch, or after its first step has been trained for days."""
    large = replace(RECIPE, steps=(CNN, replace(BINARY, batch_size=16)))
    with pytest.raises(InputError, match="step 'binary' takes batches of 16"):
        train(large, tiny_data(), tmp_path / "run", quick())
    with pytest.raises(InputError, match="has 5 images for 5 passes"):
        train(ALONE, tiny_data(), tmp_path / "run", quick(accumulate=5))
    assert not (tmp_path / "run").exists()


def test_threads_are_given_back(tmp_path: Path) -> None:
    """If this fails, training in a notebook slows down everything after it."""
    before = torch.get_num_threads()
    state = torch.get_rng_state()
    with pytest.raises(InputError):
        train(ALONE, tiny_data(), tmp_path / "none" / "run", replace(quick(), threads=before + 1))
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)
