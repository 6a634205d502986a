"""The run that a folder holds: that it is this very one, that it can be where it says, and that its files are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bnn_deploy.errors import InputError
from bnn_deploy.files import file_sha256
from bnn_deploy.training.checkpoint import NAME, Checkpoint, Progress, read_checkpoint, unusable
from bnn_deploy.training.data import TrainingData
from bnn_deploy.training.loader import batches_per_epoch
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.run_folder import WEIGHTS, weights_file


def earlier_run(
    folder: Path,
    recipe: Recipe,
    data: TrainingData,
    options: TrainOptions,
    identity: Mapping[str, str],
    environment: Mapping[str, str],
) -> Checkpoint:
    """The checkpoint in ``folder``, from which the run of these arguments goes on; see ``identity`` for the last two.

    Raises:
        InputError: it is another run's, or damaged, or weights of a finished step are missing or others.
    """
    path = folder / NAME
    checkpoint = read_checkpoint(path, environment)
    checkpoint.require_identity(identity, path)
    problem = _impossible(checkpoint.progress, recipe, data, options)
    if problem:
        raise unusable(path, problem)
    _require_weights(folder, checkpoint.progress, len(recipe.steps))
    return checkpoint


def _impossible(progress: Progress, recipe: Recipe, data: TrainingData, options: TrainOptions) -> str:
    """Why no run of this recipe comes there; "" where one does."""
    names = [step.name for step in progress.finished]
    if names != [step.name for step in recipe.steps[: len(names)]]:
        return "its finished steps are not the recipe's"
    step = recipe.steps[progress.step] if progress.step < len(recipe.steps) else None
    trained = 0 if step is None else options.trained_epochs(step)
    if step is None or not trained:
        begun = (progress.epoch, progress.batch) != (0, 0)
        return "it is within a step that is not trained" if begun else ""
    last = batches_per_epoch(data, step)
    if progress.epoch > trained or progress.batch > (last if progress.epoch < trained else 0):
        return f"it is after epoch {progress.epoch}, batch {progress.batch} of {trained} x {last}"
    if progress.sums.images != progress.batch * step.batch_size or progress.sums.correct > progress.sums.images:
        return f"it has seen {progress.sums.images} images of its epoch"
    return ""


def _require_weights(folder: Path, progress: Progress, steps: int) -> None:
    files = [(weights_file(finished.name), finished) for finished in progress.finished]
    if progress.step == steps:
        files.append((WEIGHTS, progress.finished[-1]))
    for name, finished in files:
        path = folder / name
        if not path.is_file() or file_sha256(path) != finished.sha256:
            raise InputError(
                f"{path}: is missing or not what the step {finished.name!r} wrote; restore it, or start again in another "
                "output folder."
            )
