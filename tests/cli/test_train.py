"""`bnn-deploy train`: what it prints and refuses; the training itself is tested in tests/training/."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bnn_deploy.cli import command_line
from bnn_deploy.cli.train import TerminalReport
from bnn_deploy.errors import Interrupted
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.recipe import Recipe, load_recipe
from bnn_deploy.training.records import EpochRecord
from bnn_deploy.training.result import StepResult, TrainingResult

RECORD = EpochRecord("binary", 1, 2, 0.1, 1.5, 1.5, None, 0.5, 0.75, 1.25, 2.0, 100.0)


def train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command_line, ["train", *map(str, arguments)])


def refusal(*arguments: str | Path) -> str:
    result = train(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    first, *others = result.stderr.splitlines()
    assert first.startswith("error: ") and all(" train --help'." in line for line in others)
    return first


class FakeTraining:
    """Stands for ``training.runs.train``; remembers what it was called with, and reports one epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "bnn_deploy.training.runs", SimpleNamespace(train=self))

    def __call__(self, recipe: Recipe, data: Any, output: Path, options: TrainOptions) -> TrainingResult:
        self.recipe, self.data, self.options = recipe, data, options
        options.report.note("all is well.")
        options.report.batch("binary", 1, 1, 2)
        options.report.epoch(RECORD)
        steps = (
            StepResult("cnn", "resnet_tiny", "real", "real", 0, 0.99, "cnn.safetensors"),
            StepResult("binary", recipe.model, "binary", "binary", 2, 0.75, "binary.safetensors"),
        )
        return TrainingResult(
            folder=output,
            weights=output / "weights.safetensors",
            model=recipe.model,
            variant="",
            steps=steps,
            accuracy=0.75,
            test_images=450,
            train_images=len(data.train),
            class_names=data.class_names,
            seconds=12.3,
            notes=(),
        )


def test_the_recipe_followed_is_printed(tmp_path: Path) -> None:
    """Breaks if --print-recipe needs images, leaves a change out, or prints what --recipe does not take."""
    result = train("bcdnet_a", "--print-recipe", "--epochs", 2, "--batch-size", 8)
    assert (result.exit_code, result.stderr) == (0, "")
    (tmp_path / "mine.toml").write_text(result.stdout)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("bcdnet_a").with_(epochs=2, batch_size=8)
    again = train("bcdnet_a", "--recipe", tmp_path / "mine.toml", "--print-recipe", "--format", "json")
    assert json.loads(again.stdout)["recipe"].rstrip() == result.stdout.rstrip()


def test_options_reach_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if an option of the command line changes nothing."""
    fake = FakeTraining(monkeypatch)
    result = train(
        *("bimlp_tiny", "--data", "digits", "-o", tmp_path / "run", "--subset", 128, "--seed", 7, "--device", "cpu"),
        *("--precision", "float64", "--accumulate", 2, "--workers", 1, "--threads", 3, "--teacher", "cnn=a=b.pth"),
        *("--epochs", 3, "--batch-size", 32, "--tensorboard", "--resume"),
    )
    assert result.exit_code == 0, result.stderr
    options = fake.options
    assert (options.seed, options.device, options.precision, options.accumulate) == (7, "cpu", "float64", 2)
    assert (options.workers, options.threads, options.tensorboard, options.resume) == (1, 3, True, True)
    assert options.teachers == {"cnn": Path("a=b.pth")} and options.stop() == 0
    assert fake.recipe == load_recipe("bimlp_tiny").with_(epochs=3, batch_size=32)
    assert len(fake.data.train) == 128 and fake.data.preprocessing.crop == (8, 8)


def test_result_and_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if the epochs are not on stderr, the result not on stdout, or the next command is not the right one."""
    FakeTraining(monkeypatch)
    run = tmp_path / "my run"
    result = train("bimlp_tiny", "--data", "digits", "-o", run, "--subset", 128)
    assert result.exit_code == 0, result.stderr
    of_data, noted, epoch = result.stderr.splitlines()
    assert of_data == "note: Only 128 of 360 test images are used." and noted == "note: all is well."
    assert epoch.startswith("binary 1/2  loss 1.500  test 75.0 %")
    assert [line.split() for line in result.stdout.splitlines()[:3]] == [
        ["step", "model", "activations", "weights", "epochs", "test", "accuracy"],
        ["cnn", "resnet_tiny", "real", "real", "given", "99.0", "%"],
        ["binary", "bimlp_tiny", "binary", "binary", "2", "75.0", "%"],
    ]
    assert result.stdout.splitlines()[3:] == [
        f"{run}/weights.safetensors: bimlp_tiny, 75.0 % of 450 test images right, trained on 128 in 12 s",
        f"next: bnn-deploy export bimlp_tiny --weights '{run}/weights.safetensors' -o bimlp_tiny.onnx",
    ]
    found = json.loads(train("bimlp_tiny", "--data", "digits", "-o", run, "--format", "json").stdout)
    assert (found["weights"], found["accuracy"]) == (f"{run}/weights.safetensors", 0.75)
    assert [step["name"] for step in found["steps"]] == ["cnn", "binary"] and found["seconds"] == 12.3


def test_only_the_first_process_prints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if torchrun shows every line once for each process."""
    FakeTraining(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    result = train("bimlp_tiny", "--data", "digits", "-o", tmp_path / "run")
    assert (result.exit_code, result.output) == (0, "")


def test_sigterm_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if SIGTERM kills a run before its checkpoint, or a shell cannot tell what ended it."""

    def interrupted(recipe: Recipe, data: object, output: Path, options: TrainOptions) -> TrainingResult:
        os.kill(os.getpid(), signal.SIGTERM)
        raise Interrupted("Interrupted; there is a checkpoint.", 128 + options.stop())

    monkeypatch.setitem(sys.modules, "bnn_deploy.training.runs", SimpleNamespace(train=interrupted))
    result = train("bimlp_tiny", "--data", "digits", "-o", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (143, "")
    assert result.stderr == "error: Interrupted; there is a checkpoint.\n"


def test_status_line_within_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a terminal shows no progress within an epoch, or an epoch's line is mixed with it."""
    messages: list[str] = []
    report = TerminalReport(messages.append)
    report.batch("float", 3, 5, 20)
    report.batch("float", 3, 20, 20)
    report.epoch(RECORD)
    shown = ["float: epoch 3, 5 of 20 batches", "float: epoch 3, 20 of 20 batches"]
    # The empty one erases the status line, so that the epoch's line has the place for itself.
    assert messages == [*shown, ""]
    assert capsys.readouterr().err.startswith("binary 1/2  loss 1.500")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nothing --data digits -o run", "'nothing' is not one of 'bimlp_s'"),
        ("bimlp_tiny -o run", "Missing option '--data'."),
        ("bimlp_tiny --data digits", "Missing option '-o'."),
        ("bimlp_tiny --data digits -o run --recipe nothing", "There is no recipe 'nothing'; choose one of"),
        (
            "bimlp_s --data digits -o run --recipe bimlp_tiny",
            "The recipe bimlp_tiny is for bimlp_tiny, not for bimlp_s",
        ),
        ("bimlp_tiny --data digits -o run --recipe absent.toml", "absent.toml: is not a file"),
        ("bimlp_tiny --data digits -o run --teacher cnn", "'cnn' is not a step, '=' and a file"),
        ("bimlp_tiny --data digits -o run --teacher cnn=a --teacher cnn=b", "weights of the step 'cnn' twice"),
        ("bimlp_tiny --data digits -o run --teacher resnet=a", "has no step 'resnet'; its steps are float, cnn"),
        ("bimlp_tiny --data digits -o run --teacher binary=a", "'binary' is what is to be trained"),
        ("bimlp_s --data digits -o run", "give its weights with --teacher cnn=FILE"),
        ("bimlp_tiny --data digits -o run --accumulate 3 --batch-size 64", "cannot be divided into 3 equal parts"),
        ("bimlp_tiny --data digits -o run --epochs 0", "Invalid value for '--epochs'"),
        ("bimlp_tiny --data digits -o run --held-out 1", "Invalid value for '--held-out'"),
        ("bimlp_tiny --data digits -o run --precision int8", "Invalid value for '--precision'"),
    ],
)
def test_refusals(arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a wrong command starts to train, makes a folder, or is refused without saying why."""
    monkeypatch.chdir(tmp_path)
    assert words in refusal(*arguments.split())
    assert not list(tmp_path.iterdir())


def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path) -> None:
    """Breaks if a mistake in a recipe is found only after the steps before it have been trained."""
    file = tmp_path / "mine.toml"
    file.write_text(re.sub(r"(?m)^learning_rate = .*\Z|distillation = 0.9.*", "distillation = nan", _digits_recipe()))
    message = refusal("bimlp_tiny", "--data", "digits", "-o", tmp_path / "run", "--recipe", file)
    assert message == (
        f"error: {file}: step 'binary_activations': distillation is nan, expected a number from 0 to 1; change it."
    )


def _digits_recipe() -> str:
    text = load_recipe("bimlp_tiny").to_toml()
    return text.replace('name = "binary_activations"\n', 'name = "binary_activations"\ndistillation = 0.9\n')
