"""Trains one step of a recipe: its epochs, each with a test at its end."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from bnn_deploy.errors import BnnDeployError, Interrupted
from bnn_deploy.training.checkpoint import Progress, Sums
from bnn_deploy.training.evaluation import evaluate
from bnn_deploy.training.loader import TrainingBatch, batches_per_epoch, training_batches
from bnn_deploy.training.logs import RunLog
from bnn_deploy.training.losses import step_loss
from bnn_deploy.training.optimisation import learning_rate, set_learning_rate
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.records import EpochRecord, layer_records
from bnn_deploy.training.statistics import DeadChannels
from bnn_deploy.training.step_state import StepState

if TYPE_CHECKING:
    from bnn_deploy.training.data import TrainingData
    from bnn_deploy.training.step import Step

_MIXED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Diverged(BnnDeployError):
    """A loss, a gradient or a weight is not finite any more; nothing of it was written."""


def diverged(what: str, checkpoint: Path) -> Diverged:
    """The error for a run of which ``what`` is said, and whose last good checkpoint stays."""
    return Diverged(
        f"Training diverged: {what}; the last good checkpoint, {checkpoint}, was not touched; look for damaged images, or start "
        "a new run with a lower learning_rate, a longer warm-up or a gradient_clip of 1."
    )


class Heads(nn.Module):
    """A network as it is trained: both heads of one that has two, which its ``forward`` would merge."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(n, channels, height, width) to logits (n, classes), or those of the class and the distillation head."""
        heads = getattr(self.network, "heads", None)
        outputs: Tensor | tuple[Tensor, Tensor] = self.network(images) if heads is None else heads(images)
        return outputs


class StepTraining:
    """One step that trains.

    Everything that is random in it follows from the seed and the number of the epoch, so that it goes on from a
    ``Progress`` and the tensors of its ``StepState`` as if it had never stopped.
    """

    def __init__(
        self,
        step: Step,
        state: StepState,
        teacher: nn.Module | None,
        data: TrainingData,
        processes: Processes,
        options: TrainOptions,
        *,
        log: RunLog | None,
        save: Callable[[Progress], None],
        checkpoint: Path,
    ) -> None:
        """Prepare, but train nothing yet.

        Args:
            step: of the recipe.
            state: its network and what belongs to it.
            teacher: in evaluation mode, on the same device and as precise as the network.
            data: of which ``train`` and ``test`` are used.
            processes: that train together.
            options: of the run.
            log: of the first process; the others have None.
            save: writes a checkpoint, in the first process.
            checkpoint: what ``save`` writes, for messages.

        Raises:
            InputError: there are fewer images than a batch has.
        """
        self._step, self._state, self._teacher, self._data = step, state, teacher, data
        self._processes, self._options, self._log, self._save = processes, options, log, save
        self._checkpoint = checkpoint
        self._trained = processes.wrap(Heads(state.network))
        self._per_epoch = batches_per_epoch(data, step)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=options.precision == "float16")
        self._saved_at = time.monotonic()
        self._rate = 0.0

    def run(self, progress: Progress) -> Progress:
        """Train from ``progress`` to the end of the step's last epoch; returns where that is.

        Raises:
            Diverged: the loss, or the gradient, is not finite.
            Interrupted: ``options.stop`` asked for it; the checkpoint was written.
            InputError: a picture cannot be read, or a file not be written.
        """
        self._load_scale(progress)
        while progress.epoch < self._step.epochs:
            progress = self._epoch(progress)
            self._write(progress)
            self._stop_if_asked(progress, self._processes.any(bool(self._options.stop())))
        return progress

    def _epoch(self, progress: Progress) -> Progress:
        state, step = self._state, self._step
        if progress.batch == 0:
            state.flips.start()
        state.network.train()
        before, started = progress.sums.seconds, time.monotonic()
        batches = training_batches(
            self._data,
            step,
            seed=self._options.seed,
            epoch=progress.epoch,
            processes=self._processes,
            first=progress.batch,
            workers=self._options.workers,
        )
        for batch in batches:
            done = progress.epoch * self._per_epoch + progress.batch
            self._rate = learning_rate(step, done, step.epochs * self._per_epoch, self._per_epoch)
            set_learning_rate(state.optimizer, self._rate)
            sums, stopping = self._optimizer_step(batch, progress)
            seconds = before + time.monotonic() - started
            progress = replace(progress, batch=progress.batch + 1, sums=replace(sums, seconds=seconds))
            if self._processes.is_first:
                self._options.report.batch(step.name, progress.epoch + 1, progress.batch, self._per_epoch)
            if stopping or time.monotonic() - self._saved_at >= 60 * self._options.checkpoint_minutes:
                self._write(progress)
                self._stop_if_asked(progress, stopping)
        return self._finish_epoch(progress)

    def _optimizer_step(self, batch: TrainingBatch, progress: Progress) -> tuple[Sums, bool]:
        """The sums with this batch in them, and whether a process was asked to stop."""
        state, parts = self._state, self._options.accumulate
        state.optimizer.zero_grad(set_to_none=True)
        # Loss, cross-entropy, divergence, correct ones, images, wishes to stop: one message for all of them.
        sums = torch.zeros(6, dtype=torch.float64, device=self._processes.device)
        pieces = zip(*(tensor.chunk(parts) for tensor in (batch.images, batch.labels, batch.targets)), strict=True)
        for number, (images, labels, targets) in enumerate(pieces, 1):
            # DistributedDataParallel exchanges gradients once, with the last backward pass of the batch.
            quietly = self._processes.count > 1 and number < parts
            with cast(Any, self._trained).no_sync() if quietly else nullcontext():
                sums[:5] += self._backward(images, labels, targets, parts)
        sums[5] += bool(self._options.stop())
        *means, correct, images_seen, wishes = self._processes.total(sums).tolist()
        loss, cross_entropy, divergence = (total / self._processes.count for total in means)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss:g}", progress)
        self._update_weights(progress)
        so_far = progress.sums
        return replace(
            so_far,
            loss=so_far.loss + loss,
            cross_entropy=so_far.cross_entropy + cross_entropy,
            divergence=so_far.divergence + divergence,
            correct=so_far.correct + int(correct),
            images=so_far.images + int(images_seen),
        ), bool(wishes)

    def _backward(self, images: Tensor, labels: Tensor, targets: Tensor, parts: int) -> Tensor:
        """Add the gradients of one of ``parts`` pieces of a batch; returns its share of the sums."""
        device = self._processes.device
        kind = next(self._state.network.parameters()).dtype
        images, labels, targets = images.to(device, kind), labels.to(device), targets.to(device)
        with self._autocast():
            outputs = self._trained(images)
            teacher_logits = None
            if self._teacher is not None:
                with torch.no_grad():
                    teacher_logits = self._teacher(images)
        loss = step_loss(
            outputs,
            targets,
            teacher_logits,
            distillation=self._step.distillation,
            label_smoothing=self._step.label_smoothing,
        )
        self._scaler.scale(loss.total / parts).backward()  # type: ignore[no-untyped-call]  # torch's
        logits = outputs if isinstance(outputs, Tensor) else outputs[0] + outputs[1]
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        divergence = torch.zeros_like(loss.total) if loss.divergence is None else loss.divergence
        means = torch.stack([loss.total.detach(), loss.cross_entropy, divergence.detach()]).double() / parts
        return torch.cat([means, torch.stack([correct, torch.full_like(correct, len(labels))]).double()])

    def _update_weights(self, progress: Progress) -> None:
        state = self._state
        # Even where no gradient is clipped: its norm tells of a NaN that the loss does not show yet.
        self._scaler.unscale_(state.optimizer)
        parameters = [parameter for parameter in state.network.parameters() if parameter.grad is not None]
        norm = get_total_norm([cast(Tensor, parameter.grad) for parameter in parameters])
        # With float16 a gradient may overflow now and then: GradScaler leaves that step out and scales less.
        if not self._scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise self._diverged(f"the norm of the gradient is {norm.item():g}", progress)
        if self._step.gradient_clip:
            clip_grads_with_norm_(parameters, self._step.gradient_clip, norm)
        self._scaler.step(state.optimizer)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < 1:
            raise self._diverged("the gradient does not fit float16 any more", progress)
        if state.average is not None:
            state.average.update(state.network)

    def _finish_epoch(self, progress: Progress) -> Progress:
        step, state, sums = self._step, self._state, progress.sums
        started = time.monotonic()
        with DeadChannels(state.evaluated) as dead:
            tested = evaluate(
                state.evaluated, self._data.test, processes=self._processes, workers=self._options.workers
            )
        if not math.isfinite(tested.loss):
            raise self._diverged(
                f"the loss on the test images is {tested.loss:g}", replace(progress, batch=progress.batch - 1)
            )
        counts = dead.counts(self._processes)
        seconds = sums.seconds + time.monotonic() - started
        done = (progress.epoch + 1) * self._per_epoch
        record = EpochRecord(
            step=step.name,
            epoch=progress.epoch + 1,
            epochs=step.epochs,
            learning_rate=learning_rate(step, done - 1, step.epochs * self._per_epoch, self._per_epoch),
            loss=sums.loss / self._per_epoch,
            cross_entropy=sums.cross_entropy / self._per_epoch,
            divergence=None if self._teacher is None else sums.divergence / self._per_epoch,
            train_accuracy=sums.correct / sums.images,
            test_accuracy=tested.accuracy,
            test_loss=tested.loss,
            seconds=seconds,
            images_per_second=sums.images / sums.seconds,
            layers=layer_records(state.flips.rates(), counts),
        )
        if self._log is not None:
            self._log.add(record)
            self._options.report.epoch(record)
        return replace(progress.next_epoch(), seconds=progress.seconds + seconds)

    def _write(self, progress: Progress) -> None:
        if self._scaler.is_enabled():
            scale = self._scaler.state_dict()
            progress = replace(progress, loss_scale=scale["scale"], scale_growth=scale["_growth_tracker"])
        self._save(progress)
        self._saved_at = time.monotonic()

    def _load_scale(self, progress: Progress) -> None:
        if self._scaler.is_enabled():
            scale = {"scale": progress.loss_scale, "_growth_tracker": progress.scale_growth}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **scale})

    def _stop_if_asked(self, progress: Progress, asked: bool) -> None:
        if not asked:
            return
        # No process may end before the first one has written: torchrun ends them all as soon as one has.
        self._processes.barrier()
        number = self._options.stop() or signal.SIGTERM
        raise Interrupted(
            f"Interrupted in step {self._step.name!r} after {progress.epoch} epochs and {progress.batch} optimizer steps; "
            f"{self._checkpoint} is written, and the same command with --resume goes on from there.",
            128 + number,
        )

    def _diverged(self, what: str, progress: Progress) -> Diverged:
        return diverged(
            f"{what} in step {self._step.name!r}, epoch {progress.epoch + 1}, optimizer step {progress.batch + 1} of "
            f"{self._per_epoch}, at a learning rate of {self._rate:g}",
            self._checkpoint,
        )

    def _autocast(self) -> Any:
        kind = _MIXED.get(self._options.precision)
        if kind is None:
            return nullcontext()
        return torch.autocast(self._processes.device.type, dtype=kind)
