"""A run of two steps that takes a third of a second: a small teacher, then a binary BCDNet, 3 optimizer steps an epoch."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path

from bnn_deploy.training.data import TrainingData, open_training_data
from bnn_deploy.training.logs import LOG_COLUMNS
from bnn_deploy.training.options import Report, TrainOptions
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.step import Step

MODEL = "bcdnet_tiny"
SIZE = 8
BATCHES = 3
EPOCHS = 2
_CLOCK = ("seconds", "images_per_second")

CNN = Step(
    "cnn", model="resnet_tiny", activations="real", weights="real", epochs=1, batch_size=5, learning_rate=5e-3, shift=1
)
BINARY = Step(
    "binary",
    teacher="cnn",
    epochs=EPOCHS,
    batch_size=5,
    learning_rate=5e-3,
    weight_decay=1e-2,
    warmup_epochs=0.5,
    average=0.9,
    shift=1,
    mixup=0.2,
)
RECIPE = Recipe(MODEL, None, "a tiny run", (CNN, BINARY), input_size=SIZE)


def tiny_data(subset: int = 15, model: str = MODEL) -> TrainingData:
    """One or two images of each digit to train on, as many to test on."""
    return open_training_data(Path("digits"), model, input_size=SIZE, subset=subset)


def options(report: Report | None = None, *, resume: bool = False, minutes: float = 0.0, seed: int = 3) -> TrainOptions:
    """On one thread of the CPU, with a checkpoint after every ``minutes``: 0, after every optimizer step."""
    return TrainOptions(
        seed=seed,
        device="cpu",
        threads=1,
        resume=resume,
        checkpoint_minutes=minutes,
        report=report or Report(),
    )


class At(Report):
    """Calls ``act`` after the optimizer step ``batch`` of an epoch, before its checkpoint; remembers all notes."""

    def __init__(self, step: str, epoch: int, batch: int, act: Callable[[], object]) -> None:
        self._moment, self._act = (step, epoch, batch), act
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def batch(self, step: str, epoch: int, done: int, total: int) -> None:
        if (step, epoch, done) == self._moment:
            self._act()


def kill() -> None:
    """What `kill -9` does; nothing of this process is run any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(run: Callable[[], object]) -> None:
    """Do ``run`` in a process of its own, which must be killed by SIGKILL before ``run`` returns."""
    # A fork costs nothing where an interpreter that imports torch costs two seconds; with one thread there is no lock
    # that it could inherit.
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "the process was not killed"


def outcome(folder: Path) -> dict[str, object]:
    """Everything in a finished run's folder that must be the same bits in a repeated run."""
    with open(folder / "log.csv", newline="") as file:
        log = [{key: value for key, value in row.items() if key not in _CLOCK} for row in csv.DictReader(file)]
    assert set(_CLOCK) < set(LOG_COLUMNS) and len(log) == CNN.epochs + EPOCHS
    files = ("weights.safetensors", "cnn.safetensors", "binary.safetensors", "layers.csv", "recipe.toml")
    return {"log.csv": log, **{name: (folder / name).read_bytes() for name in files}}
