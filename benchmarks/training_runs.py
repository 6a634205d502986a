"""Trainings over several seeds, kept in folders so that a benchmark that was stopped goes on, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import click

from bnn_deploy.training.data import open_training_data
from bnn_deploy.training.options import Report, TrainOptions
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.records import EpochRecord
from bnn_deploy.training.result import TrainingResult
from bnn_deploy.training.runs import train

DIGITS = Path("digits")
SUBSET = 128


@dataclass(frozen=True)
class Row:
    """One line of a table: the results of one network and recipe, one for each seed."""

    name: str
    results: Sequence[TrainingResult]


class _Epochs(Report):
    """A line on stderr for each epoch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def epoch(self, record: EpochRecord) -> None:
        click.echo(
            f"{self._name}: {record.step} {record.epoch}/{record.epochs}, loss {record.loss:.4f}, "
            f"test {100 * record.test_accuracy:.2f} %, {record.seconds:.1f} s",
            err=True,
        )


def train_once(
    recipe: Recipe, folder: Path, *, seed: int, subset: int | None, teachers: Mapping[str, Path] | None = None
) -> TrainingResult:
    """Train on the digits with one thread, or take up what is in ``folder``; ``teachers`` that the recipe lacks are unused."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = {step.name for step in recipe.steps}
    given = {name: path for name, path in (teachers or {}).items() if name in names}
    data = open_training_data(DIGITS, recipe.model, subset=subset)
    # One thread: the tensors are small, and a second one would change the last bits of the sums.
    report = _Epochs(f"{folder.name}, seed {seed}")
    options = TrainOptions(seed=seed, device="cpu", threads=1, teachers=given, resume=True, report=report)
    return train(recipe, data, folder, options)


def epochs_of(result: TrainingResult) -> str:
    """The epochs of the student's steps, "8 + 12"."""
    return " + ".join(str(step.epochs) for step in result.steps if step.activations == "binary")


def accuracy_table(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """Markdown: test accuracy in percent of each seed, their mean, and the seconds of training."""
    heads = ["", "epochs", *(f"seed {seed}" for seed in seeds), "mean", "seconds each"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    for row in rows:
        accuracies = [f"{100 * result.accuracy:.2f}" for result in row.results]
        average = f"{100 * mean(result.accuracy for result in row.results):.2f}"
        seconds = ", ".join(f"{result.seconds:.0f}" for result in row.results)
        lines.append("| " + " | ".join([row.name, epochs_of(row.results[0]), *accuracies, average, seconds]) + " |")
    return "\n".join(lines)
