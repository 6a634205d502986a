"""The checkpoint of a training run: one safetensors file, which everything that the run still needs is in.

Tensors are named ``model.*``, ``optimizer.<parameter>.<state>``, ``average.*`` and ``signs.*``. At the beginning of a step
there are none, as its network follows from the recipe and the seed. All else is JSON in the file's metadata, read as if
from a stranger: everything is checked for type and range. There is no state of random numbers (see ``seeds``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from bnn_deploy.checked_fields import Fields, choice, number, parse_json, text, whole
from bnn_deploy.errors import InputError
from bnn_deploy.metadata import entries
from bnn_deploy.weights.safetensors_file import UnfitTensorsError, read_metadata, write_tensors

NAME = "checkpoint.safetensors"
FORMAT = "bnn-deploy/training-checkpoint/1"
_MOST_CHARACTERS = 2**20

# What an entry of the identity is, for the sentence that refuses a checkpoint; the long ones are hashes.
_MEANINGS = {
    "model": "model",
    "variant": "variant",
    "classes": "number of classes",
    "input_size": "size of the images",
    "recipe": "recipe (its steps, epochs or batch sizes)",
    "data": "images or names of classes",
    "seed": "seed",
    "precision": "precision",
    "teachers": "teachers' weights",
}
_SHOWN = 40


@dataclass(frozen=True)
class Sums:
    """Of one epoch so far, over the images of all processes.

    Attributes:
        loss, cross_entropy, divergence: sums over optimizer steps of their means over the batch.
        correct, images: training images classified rightly, and all.
        seconds: of training.
    """

    loss: float = 0.0
    cross_entropy: float = 0.0
    divergence: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Finished:
    """A finished step: its name, the SHA-256 of its weights' file, and its accuracy on the test images, 0..1."""

    name: str
    sha256: str
    accuracy: float


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        finished: steps.
        epoch: finished epochs of the step after them.
        batch: optimizer steps of the epoch after those.
        sums: of that epoch.
        seconds: of the whole run.
        loss_scale, scale_growth: of the gradients of float16, and the optimizer steps since it changed.
    """

    finished: tuple[Finished, ...] = ()
    epoch: int = 0
    batch: int = 0
    sums: Sums = Sums()
    seconds: float = 0.0
    loss_scale: float = 65536.0
    scale_growth: int = 0

    @property
    def step(self) -> int:
        """Index of the step that the run is in; the number of steps when it is finished."""
        return len(self.finished)

    def next_step(self, finished: Finished) -> Progress:
        """The beginning of the step after this one."""
        return Progress(finished=(*self.finished, finished), seconds=self.seconds)

    def next_epoch(self) -> Progress:
        """The beginning of the epoch after this one."""
        return replace(self, epoch=self.epoch + 1, batch=0, sums=Sums())


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says besides its tensors.

    Attributes:
        identity: what the run learns depends on it; it must be the same to go on.
        environment: its last bits may depend on it.
        progress: where the run is.
    """

    identity: Mapping[str, str]
    environment: Mapping[str, str]
    progress: Progress

    def write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write the file, whole or not at all; raises InputError if it cannot be written."""
        content = {
            "format": FORMAT,
            "identity": dict(self.identity),
            "environment": dict(self.environment),
            "progress": asdict(self.progress),
        }
        write_tensors(path, tensors, {entries.CHECKPOINT: json.dumps(content, sort_keys=True)})

    def require_identity(self, identity: Mapping[str, str], path: Path) -> None:
        """Raise InputError naming what differs unless it is a checkpoint of this very run."""
        for name, here in identity.items():
            found = self.identity.get(name, "")
            if found != here:
                values = "" if max(len(found), len(here)) > _SHOWN else f" ({found or 'none'}, not {here or 'none'})"
                raise InputError(
                    f"{path}: is of a run with another {_MEANINGS[name]}{values}; resume with what it was started with, "
                    "or choose another output folder."
                )

    def environment_notes(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """A sentence for everything that is not as it was when the checkpoint was written."""
        return tuple(
            f"The run goes on with another {name} ({here}, before {self.environment[name][:_SHOWN]!a}), so "
            "its last bits may differ from those of an uninterrupted run."
            for name, here in environment.items()
            if self.environment[name] != here
        )


def read_checkpoint(path: Path, environment: Mapping[str, str]) -> Checkpoint:
    """Read all but the tensors.

    Args:
        path: the file.
        environment: entries that it must say something of.

    Raises:
        InputError: it is no checkpoint, or damaged.
    """
    try:
        content = read_metadata(path).get(entries.CHECKPOINT, "")
    except OSError as error:
        raise unusable(path, str(error.strerror)) from error
    except UnfitTensorsError as error:
        raise unusable(path, str(error)) from error
    if not content:
        raise unusable(path, "it has no state of a training run")
    if len(content) > _MOST_CHARACTERS:
        raise unusable(path, f"its state has {len(content)} characters")
    try:
        fields = Fields(parse_json(content), lambda problem: unusable(path, problem))
    except ValueError as error:
        raise unusable(path, "its state is not JSON") from error
    fields.take("format", choice(FORMAT))
    told, around = fields.inner("identity"), fields.inner("environment")
    return Checkpoint(
        {name: told.take(name, text) for name in _MEANINGS},
        {name: around.take(name, text) for name in environment},
        _progress(fields.inner("progress")),
    )


def unusable(path: Path, reason: str) -> InputError:
    """The error that refuses a checkpoint."""
    return InputError(
        f"{path}: not a checkpoint that can be used ({reason}); restore it, or start again in another output folder."
    )


def _progress(fields: Fields) -> Progress:
    sums = fields.inner("sums")
    return Progress(
        finished=tuple(
            Finished(step.take("name", text), step.take("sha256", text), step.take("accuracy", number(0, 1)))
            for step in fields.objects("finished")
        ),
        epoch=fields.take("epoch", _count),
        batch=fields.take("batch", _count),
        sums=Sums(
            loss=sums.take("loss", _finite),
            cross_entropy=sums.take("cross_entropy", _finite),
            divergence=sums.take("divergence", _finite),
            correct=sums.take("correct", _count),
            images=sums.take("images", _count),
            seconds=sums.take("seconds", _finite),
        ),
        seconds=fields.take("seconds", _finite),
        loss_scale=fields.take("loss_scale", _finite),
        scale_growth=fields.take("scale_growth", _count),
    )


_count = whole(largest=2**53)
_finite = number(-sys.float_info.max, sys.float_info.max)
