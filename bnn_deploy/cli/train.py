"""``bnn-deploy train``: from images and a recipe to weights that ``export`` takes."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnn_deploy.cli.options import FILE, format_option, note, print_result
from bnn_deploy.errors import InputError
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.progress import Pace, ReportProgress, quiet, status_line
from bnn_deploy.report.text import table
from bnn_deploy.training.options import PRECISIONS, Report, TrainOptions, TrainPrecision, check_options
from bnn_deploy.training.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from bnn_deploy.training.records import EpochRecord
    from bnn_deploy.training.result import TrainingResult

    _ParamType = click.ParamType[tuple[str, Path]]
else:
    _ParamType = click.ParamType  # which takes no arguments in click 8.2

# Seconds between two changes of the status line: a step on small images takes less.
_REFRESH = 0.1


class StepFile(_ParamType):
    """STEP=FILE."""

    name = "STEP=FILE"

    def convert(
        self, value: str | tuple[str, Path], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        step, equals, file = value.partition("=")
        if not (step and equals and file):
            self.fail(f"{value!r} is not a step, '=' and a file, such as cnn=resnet34.pth.", param, ctx)
        return step, Path(file)


@click.command("train", short_help="Train a model by the papers' recipe, on your images.")
@click.argument("model", type=click.Choice(MODEL_NAMES), metavar="MODEL")
@click.option(
    "--data",
    type=FILE,
    metavar="digits|DIR",
    help="scikit-learn's digits; or a folder with train/ and val/ (or test/), each with one sub-folder of pictures for each "
    "class; or a folder with these sub-folders.",
)
@click.option("-o", "--output", type=FILE, metavar="RUN", help="Folder of the run: weights, checkpoint, logs.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in RUN.")
@click.option(
    "--recipe", metavar="NAME|FILE.toml", help="The steps and their numbers; the default is MODEL's own recipe."
)
@click.option("--print-recipe", is_flag=True, help="Print the recipe that would be followed, and stop.")
@click.option("--epochs", type=click.IntRange(1, 100_000), metavar="N", help="Of every step that trains.")
@click.option(
    "--batch-size", type=click.IntRange(1, 2**20), metavar="N", help="Images of one optimizer step, in every step."
)
@click.option(
    "--teacher",
    "teachers",
    type=StepFile(),
    multiple=True,
    help="Weights of a step, which is then not trained. May be given several times.",
)
@click.option("--subset", type=click.IntRange(1), metavar="N", help="Train on N images and test on N, to try a recipe.")
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="F",
    help="Part of the images to test on, where the folder has no val/ or test/.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the initial weights, the order of the images and their changes.",
)
@click.option("--device", metavar="cpu|cuda|cuda:N", help="Where to train; the default is the GPU if there is one.")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="Of the arithmetic."
)
@click.option(
    "--accumulate",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    metavar="N",
    help="Compute each batch in N parts, which takes less memory.",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), metavar="N", help="On the processor; the default is PyTorch's choice."
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=0,
    show_default=True,
    metavar="N",
    help="Processes that load images besides the one that trains.",
)
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's logs besides the .csv files.")
@format_option
def train_command(
    model: str,
    data: Path | None,
    output: Path | None,
    resume: bool,
    recipe: str | None,
    print_recipe: bool,
    epochs: int | None,
    batch_size: int | None,
    teachers: tuple[tuple[str, Path], ...],
    subset: int | None,
    held_out: float,
    seed: int,
    device: str | None,
    precision: TrainPrecision,
    accumulate: int,
    threads: int | None,
    workers: int,
    tensorboard: bool,
    output_format: str,
) -> None:
    """Train MODEL, and the teachers that its recipe wants, on images of your classes.

    RUN/weights.safetensors is what `bnn-deploy export MODEL --weights` takes. On several GPUs or machines:
    torchrun --nproc-per-node N -m bnn_deploy.cli train ...; only the first process prints and writes.

    Ctrl-C ends the run with a checkpoint, from which --resume goes on as if nothing had happened.
    """
    followed = _recipe(model, recipe).with_(epochs=epochs, batch_size=batch_size)
    if print_recipe:
        text = followed.to_toml()
        print_result({"recipe": text}, output_format, text.rstrip)
        return
    if data is None or output is None:
        raise click.UsageError(f"Missing option '{'--data' if data is None else '-o'}'.")
    is_first = os.environ.get("RANK", "0") == "0"
    with status_line() as terminal:
        progress = terminal if is_first else quiet
        options = TrainOptions(
            seed=seed,
            device=device,
            precision=precision,
            accumulate=accumulate,
            workers=workers,
            threads=threads,
            teachers=_by_step(teachers),
            resume=resume,
            tensorboard=tensorboard,
            report=TerminalReport(progress) if is_first else Report(),
        )
        result = _train(followed, data, output, options, subset, held_out, progress)
    if is_first:
        print_result(result.to_dict(), output_format, lambda: _text(result))


def _train(
    recipe: Recipe,
    data: Path,
    output: Path,
    options: TrainOptions,
    subset: int | None,
    held_out: float,
    progress: ReportProgress,
) -> TrainingResult:
    from dataclasses import replace

    # What needs no images is refused before a large folder is listed.
    check_options(recipe, options, processes=1)
    progress("loading PyTorch")
    from bnn_deploy.training.data import open_training_data
    from bnn_deploy.training.runs import train
    from bnn_deploy.training.stopping import stop_signals

    progress(f"listing the images of {data}")
    images = open_training_data(data, recipe.model, input_size=recipe.input_size, subset=subset, held_out=held_out)
    for sentence in images.notes:
        options.report.note(sentence)
    with stop_signals() as stop:
        return train(recipe, images, output, replace(options, stop=stop))


class TerminalReport(Report):
    """One line on stderr for each epoch, and on a terminal a status line within it."""

    def __init__(self, progress: ReportProgress) -> None:
        self._progress = progress
        self._of: tuple[str, int] | None = None
        self._shown = 0.0

    def note(self, sentence: str) -> None:
        self._above()
        note(sentence)

    def batch(self, step: str, epoch: int, done: int, total: int) -> None:
        if self._of != (step, epoch):
            self._of = (step, epoch)
            self._pace = Pace(total, done, f"{step}: epoch {epoch}, {{done}} of {{total}} batches")
        now = time.monotonic()
        if now - self._shown >= _REFRESH or done == total:
            self._shown = now
            self._progress(self._pace.message(done))

    def epoch(self, record: EpochRecord) -> None:
        from bnn_deploy.training.logs import epoch_line

        self._above()
        click.echo(epoch_line(record), err=True)

    def _above(self) -> None:
        """Erase the status line, for a line that stays."""
        self._progress("")


def _recipe(model: str, name: str | None) -> Recipe:
    found = load_recipe(model if name is None else name)
    if found.model != model:
        raise InputError(
            f"The recipe {name} is for {found.model}, not for {model}; choose another one, or train {found.model}."
        )
    return found


def _by_step(teachers: tuple[tuple[str, Path], ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for step, file in teachers:
        if step in files:
            raise InputError(f"--teacher gives weights of the step {step!r} twice; leave one of them out.")
        files[step] = file
    return files


def _text(result: TrainingResult) -> str:
    rows = [
        (
            step.name,
            step.model,
            step.activations,
            step.weights,
            str(step.epochs or "given"),
            f"{100 * step.accuracy:.1f} %",
        )
        for step in result.steps
    ]
    command = shlex.join(
        ["bnn-deploy", "export", result.model, "--weights", str(result.weights), "-o", f"{result.model}.onnx"]
    )
    return "\n".join(
        [
            table(("step", "model", "activations", "weights", "epochs", "test accuracy"), rows, left=4),
            f"{result.weights}: {result.model}, {100 * result.accuracy:.1f} % of {result.test_images} test images right, "
            f"trained on {result.train_images} in {result.seconds:.0f} s",
            f"next: {command}",
        ]
    )
