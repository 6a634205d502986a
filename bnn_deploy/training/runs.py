"""Runs a recipe: its steps in order, in a folder that a run which was interrupted anywhere goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from bnn_deploy.files import file_sha256, write_whole
from bnn_deploy.training import checkpoint as checkpoints
from bnn_deploy.training.augmentation import recolours
from bnn_deploy.training.checkpoint import Checkpoint, Finished, Progress
from bnn_deploy.training.data import TrainingData
from bnn_deploy.training.earlier_run import earlier_run
from bnn_deploy.training.engine import Diverged, StepTraining, diverged
from bnn_deploy.training.evaluation import evaluate
from bnn_deploy.training.identity import run_environment, run_identity, variant_of
from bnn_deploy.training.loader import batches_per_epoch
from bnn_deploy.training.logs import RunLog
from bnn_deploy.training.networks import build_network, load_weights
from bnn_deploy.training.options import TrainOptions, check_options
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.result import StepResult, TrainingResult
from bnn_deploy.training.run_folder import RECIPE, RESULT, WEIGHTS, has_run, only_writer, weights_file
from bnn_deploy.training.step import Step
from bnn_deploy.training.step_state import StepState
from bnn_deploy.weights.safetensors_file import require_finite
from bnn_deploy.weights.weights_file import WeightsDescription, deployed_tensors, write_weights


def train(recipe: Recipe, data: TrainingData, output: Path, options: TrainOptions | None = None) -> TrainingResult:
    """Train the recipe's model in the recipe's steps; under torchrun, each of its processes has to call this.

    On the CPU, the same arguments, number of threads and version of PyTorch give the same weights bit for bit, whether or
    not the run was killed in between and resumed.

    Args:
        recipe: what is trained, and how.
        data: opened for ``recipe.model`` and ``recipe.input_size``.
        output: folder of the run, new or empty unless a run is resumed, which all processes see. Afterwards it holds the
            recipe, a file of weights for each step, those of the last one as ``weights.safetensors``, the logs,
            ``result.json`` and the checkpoint.
        options: the seed and everything else, see ``TrainOptions``.

    Raises:
        InputError: options, data or the folder do not fit, or the checkpoint is damaged or another run's.
        ModelFileError: a teacher's given weights do not fit.
        Diverged: a loss, gradient or weight is not finite any more; the last checkpoint stays as it was.
        Interrupted: a signal came (``options.stop``); there is a checkpoint to resume from.
        ToolError: a package that the recipe or the data need is missing.
    """
    options = options or TrainOptions()
    with _threads(options.threads), Processes.start(options.device) as processes:
        check_options(recipe, options, processes.count)
        return _Run(recipe, data, Path(output), options, processes).run()


class _Run:
    def __init__(
        self, recipe: Recipe, data: TrainingData, folder: Path, options: TrainOptions, processes: Processes
    ) -> None:
        self._recipe, self._data, self._folder = recipe, data, folder
        self._options, self._processes = options, processes
        self._path = folder / checkpoints.NAME
        self._identity = run_identity(recipe, data, options)
        self._environment = run_environment(options, processes)
        self._notes = list(data.notes)
        for step in recipe.steps:
            if step.name not in options.teachers:
                # Before anything is trained: a later step may have larger batches, or need torchvision.
                batches_per_epoch(data, step)
                recolours(step)

    def run(self) -> TrainingResult:
        progress, state = Progress(), None
        if has_run(self._folder, self._options.resume):
            progress = self._take_up()
            if (progress.epoch, progress.batch) != (0, 0):
                state = self._start(self._recipe.steps[progress.step])
                state.load(self._path)
        # All have looked before the first one changes anything.
        self._processes.barrier()
        with ExitStack() as stack:
            log = self._open(stack, progress) if self._processes.is_first else None
            self._processes.barrier()
            while progress.step < len(self._recipe.steps):
                progress = self._run_step(self._recipe.steps[progress.step], progress, log, state)
                state = None
        return self._result(progress)

    def _open(self, stack: ExitStack, progress: Progress) -> RunLog | None:
        """Take the folder; returns the log unless the run is finished."""
        stack.enter_context(only_writer(self._folder))
        if progress == Progress():
            # First of all, so that a folder with anything in it is a run that can be resumed.
            self._save(progress)
        recipe = self._recipe.to_toml().encode()
        write_whole(self._folder / RECIPE, lambda file: file.write(recipe))
        if progress.step == len(self._recipe.steps):
            return None
        trained = (
            sum(self._options.trained_epochs(step) for step in self._recipe.steps[: progress.step]) + progress.epoch
        )
        return stack.enter_context(RunLog(self._folder, self._options.tensorboard, trained))

    def _take_up(self) -> Progress:
        """Where the run in the folder is."""
        checkpoint = earlier_run(
            self._folder, self._recipe, self._data, self._options, self._identity, self._environment
        )
        progress = checkpoint.progress
        if progress.step == len(self._recipe.steps):
            self._note(f"The run in {self._folder} is finished; there is nothing left to train.")
            return progress
        step = self._recipe.steps[progress.step]
        self._note(
            f"Goes on in step {step.name!r} after {progress.epoch} of {self._options.trained_epochs(step)} epochs and "
            f"{progress.batch} optimizer steps."
        )
        for note in checkpoint.environment_notes(self._environment):
            self._note(note)
            self._notes.append(note)
        return progress

    def _start(self, step: Step) -> StepState:
        """The beginning of a step that trains."""
        network = self._build(step)
        if step.start:
            load_weights(network, self._folder / weights_file(step.start))
        return StepState(self._processes.prepare(self._precise(network)), step)

    def _run_step(self, step: Step, progress: Progress, log: RunLog | None, resumed: StepState | None) -> Progress:
        given = self._options.teachers.get(step.name)
        if given is not None:
            network = self._build(step)
            load_weights(network, given)
            return self._finish_step(step, network, progress)
        state = resumed or self._start(step)
        teacher = self._teacher(self._recipe.step(step.teacher)) if step.teacher else None
        training = StepTraining(
            step,
            state,
            teacher,
            self._data,
            self._processes,
            self._options,
            log=log,
            save=lambda reached: self._save(reached, state),
            checkpoint=self._path,
        )
        return self._finish_step(step, state.evaluated, training.run(progress))

    def _finish_step(self, step: Step, network: nn.Module, progress: Progress) -> Progress:
        """Write the weights, with the accuracy that the very numbers in the file have."""
        tensors = deployed_tensors(network, binary_weights=step.weights == "binary")
        deployed = self._build(step)
        deployed.load_state_dict(tensors)
        deployed.to(self._processes.device)
        tested = evaluate(deployed, self._data.test, processes=self._processes, workers=self._options.workers)
        if not self._options.trained_epochs(step):
            self._note(f"Step {step.name!r} has given weights: {100 * tested.accuracy:.2f} % of the test images.")
        path = self._folder / weights_file(step.name)
        last = step == self._recipe.steps[-1]
        if self._processes.is_first:
            description = self._description(step, tested.accuracy)
            write_weights(path, tensors, description)
            if last:
                write_weights(self._folder / WEIGHTS, tensors, description)
        self._processes.barrier()
        progress = progress.next_step(Finished(step.name, file_sha256(path), tested.accuracy))
        if self._processes.is_first:
            if last:
                text = json.dumps(self._result(progress).to_dict(), indent=1).encode()
                write_whole(self._folder / RESULT, lambda file: file.write(text + b"\n"), durable=True)
            self._save(progress)
        return progress

    def _save(self, progress: Progress, state: StepState | None = None) -> None:
        """Write the checkpoint; ``state`` is the step's that the run is in, None at its beginning."""
        if not self._processes.is_first:
            return
        tensors = {} if state is None else state.tensors()
        require_finite(tensors, lambda name: self._not_finite(name, progress))
        Checkpoint(self._identity, self._environment, progress).write(self._path, tensors)

    def _not_finite(self, name: str, progress: Progress) -> Diverged:
        step = self._recipe.steps[progress.step].name
        return diverged(
            f"{name} is not finite after {progress.epoch} epochs and {progress.batch} optimizer steps of step {step!r}",
            self._path,
        )

    def _build(self, step: Step) -> nn.Module:
        return build_network(
            self._recipe,
            step,
            classes=len(self._data.class_names),
            preprocessing=self._data.preprocessing,
            seed=self._options.seed,
        )

    def _teacher(self, step: Step) -> nn.Module:
        network = self._build(step)
        load_weights(network, self._folder / weights_file(step.name))
        return self._precise(network).to(self._processes.device).requires_grad_(False).eval()

    def _precise(self, network: nn.Module) -> nn.Module:
        return network.double() if self._options.precision == "float64" else network

    def _description(self, step: Step, accuracy: float) -> WeightsDescription:
        return WeightsDescription(
            model=step.model or self._recipe.model,
            variant="" if step.model else variant_of(self._recipe),
            preprocessing=self._data.preprocessing,
            class_names=self._data.class_names,
            training={
                "recipe": self._recipe.to_toml(),
                "step": step.name,
                "activations": step.activations,
                "weights": step.weights,
                "seed": self._options.seed,
                "data": self._data.identity,
                "accuracy": accuracy,
                "test_images": len(self._data.test),
            },
        )

    def _result(self, progress: Progress) -> TrainingResult:
        steps = tuple(
            StepResult(
                name=step.name,
                model=step.model or self._recipe.model,
                activations=step.activations,
                weights=step.weights,
                epochs=self._options.trained_epochs(step),
                accuracy=finished.accuracy,
                file=weights_file(step.name),
            )
            for step, finished in zip(self._recipe.steps, progress.finished, strict=True)
        )
        return TrainingResult(
            folder=self._folder,
            weights=self._folder / WEIGHTS,
            model=self._recipe.model,
            variant=variant_of(self._recipe),
            steps=steps,
            accuracy=steps[-1].accuracy,
            test_images=len(self._data.test),
            train_images=len(self._data.train),
            class_names=self._data.class_names,
            seconds=progress.seconds,
            notes=tuple(self._notes),
        )

    def _note(self, sentence: str) -> None:
        if self._processes.is_first:
            self._options.report.note(sentence)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
