"""The checkpoint of a training run: one safetensors file, which everything that the run still needs is in.

Tensors are named ``model.*``, ``optimizer.<parameter>.<state>``, ``average.*`` and ``signs.*``. At the beginning of a step
there are none, as its network follows from the recipe and the seed. All else is JSON in the file's metadata, read as if
from a stranger: everything is checked for type and range. There is no state of random numbers (see ``seeds``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bnn_deploy.errors import InputError
from bnn_deploy.weights.safetensors_file import UnfitTensorsError, read_metadata, write_tensors

NAME = "checkpoint.safetensors"
FORMAT = "bnn-deploy/training-checkpoint/1"
_KEY = "bnn_deploy.checkpoint"
_MOST_CHARACTERS = 2**20
_LARGEST_COUNT = 2**53

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
        write_tensors(path, tensors, {_KEY: json.dumps(content, sort_keys=True)})

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
        text = read_metadata(path).get(_KEY, "")
        if not text:
            raise ValueError("it has no state of a training run")
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"its state has {len(text)} characters")
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        return Checkpoint(
            _texts(content["identity"], _MEANINGS),
            _texts(content["environment"], environment),
            _progress(content["progress"]),
        )
    except OSError as error:
        raise unusable(path, str(error.strerror)) from error
    except KeyError as error:
        raise unusable(path, f"it says nothing of {str(error.args[0])[:_SHOWN]!a}") from error
    except (UnfitTensorsError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise unusable(path, str(error).split("\n")[0]) from error


def unusable(path: Path, reason: str) -> InputError:
    """The error that refuses a checkpoint."""
    return InputError(
        f"{path}: not a checkpoint that can be used ({reason}); restore it, or start again in another output folder."
    )


def _progress(entry: Any) -> Progress:
    finished = entry["finished"]
    if not isinstance(finished, list):
        raise ValueError("its finished steps are no list")
    numbers = {field.name: entry[field.name] for field in fields(Progress) if field.name not in ("finished", "sums")}
    sums = {field.name: entry["sums"][field.name] for field in fields(Sums)}
    for name in ("epoch", "batch", "scale_growth"):
        numbers[name] = _count(name, numbers[name])
    for name in ("correct", "images"):
        sums[name] = _count(name, sums[name])
    for name in ("seconds", "loss_scale"):
        numbers[name] = _number(name, numbers[name])
    for name in ("loss", "cross_entropy", "divergence", "seconds"):
        sums[name] = _number(name, sums[name])
    return Progress(finished=tuple(_finished(step) for step in finished), sums=Sums(**sums), **numbers)


def _finished(entry: Any) -> Finished:
    texts = _texts(entry, ("name", "sha256"))
    accuracy = _number("accuracy", entry["accuracy"])
    if not 0 <= accuracy <= 1:
        raise ValueError(f"its accuracy is {accuracy}")
    return Finished(texts["name"], texts["sha256"], accuracy)


def _texts(entry: Any, names: Mapping[str, str] | tuple[str, ...]) -> dict[str, str]:
    texts = {name: entry[name] for name in names}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"its {name} is {str(text)[:_SHOWN]!a}")
    return texts


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_COUNT:
        raise ValueError(f"its {name} is {str(value)[:_SHOWN]!a}")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"its {name} is {str(value)[:_SHOWN]!a}")
    return value
