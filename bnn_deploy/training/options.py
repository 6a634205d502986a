"""What a training run is told besides its recipe and its data: nothing of it changes what is learned, but for the seed,
the precision, and the number of threads (PyTorch's order of summation follows it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bnn_deploy.errors import InputError
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.step import Step

if TYPE_CHECKING:
    from bnn_deploy.training.records import EpochRecord

TrainPrecision = Literal["float32", "float64", "bfloat16", "float16"]
PRECISIONS: tuple[TrainPrecision, ...] = ("float32", "float64", "bfloat16", "float16")


class Report:
    """What a run says while it goes on. These methods say nothing; only the first process calls them."""

    def note(self, sentence: str) -> None:
        """Something that the user should know, such as where the run goes on from."""

    def batch(self, step: str, epoch: int, done: int, total: int) -> None:
        """``done`` of ``total`` optimizer steps of an epoch are done; epochs count from 1."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has ended, and is in the log."""


def never_stop() -> int:
    """No signal has come."""
    return 0


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``train``.

    Attributes:
        seed: of the initial weights, the order of the images and their augmentation.
        device: as PyTorch names it; None: the GPU if there is one, else the processor.
        precision: of the computation; the 16-bit ones are automatic mixed precision.
        accumulate: forward passes that one optimizer step's batch is divided into.
        workers: processes that load images, 0: none but the main one.
        threads: of PyTorch on the processor; None: as many as PyTorch takes.
        teachers: files with the weights of steps, by step; such a step is not trained.
        resume: go on from the checkpoint in the run folder, if there is one.
        checkpoint_minutes: time between checkpoints within an epoch; each epoch ends with one.
        tensorboard: write TensorBoard's logs too.
        report: see ``Report``.
        stop: asked after every optimizer step; a signal's number ends the run there, with a checkpoint (see
            ``stopping.stop_signals``), 0 does not.
    """

    seed: int = 0
    device: str | None = None
    precision: TrainPrecision = "float32"
    accumulate: int = 1
    workers: int = 0
    threads: int | None = None
    teachers: Mapping[str, Path] = field(default_factory=dict)
    resume: bool = False
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False
    report: Report = field(default_factory=Report)
    stop: Callable[[], int] = never_stop

    def trained_epochs(self, step: Step) -> int:
        """How many epochs the step is trained for: 0 where its weights are given."""
        return 0 if step.name in self.teachers else step.epochs


def check_options(recipe: Recipe, options: TrainOptions, processes: int) -> None:
    """Raise InputError if the recipe cannot be followed with these options by that many processes."""
    names = [step.name for step in recipe.steps]
    last = names[-1]
    for name in options.teachers:
        if name not in names:
            raise InputError(f"The recipe has no step {name!r}; its steps are {', '.join(names)}.")
        if name == last:
            raise InputError(f"The step {name!r} is what is to be trained; give weights for the steps before it only.")
    for step in recipe.steps:
        if step.name in options.teachers:
            continue
        if not step.epochs:
            raise InputError(
                f"The step {step.name!r} ({step.model or recipe.model}) is not trained by this recipe (epochs = 0); give its "
                f"weights with --teacher {step.name}=FILE, or a recipe that trains it."
            )
        parts = processes * options.accumulate
        if step.batch_size % parts:
            raise InputError(
                f"The batch of {step.batch_size} images of the step {step.name!r} cannot be divided into {parts} equal parts "
                f"({processes} processes, {options.accumulate} accumulated passes); change --batch-size or --accumulate."
            )
        if step.batch_size < 2 * options.accumulate:
            raise InputError(
                f"The step {step.name!r} has {step.batch_size} images for {options.accumulate} passes, but a normalisation over a "
                "single image cannot be learned; give a smaller --accumulate or a larger --batch-size."
            )
