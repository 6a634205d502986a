"""Images in batches: which ones, in which order, prepared by worker processes if wanted.

What comes out depends on (seed, step, epoch, index) only, never on how many workers prepare it or where an epoch is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bnn_deploy.errors import BnnDeployError, InputError, ToolError, message_lines
from bnn_deploy.training.augmentation import Augmented
from bnn_deploy.training.data import Images, TrainingData
from bnn_deploy.training.mixing import mixed
from bnn_deploy.training.seeds import dice, generator

if TYPE_CHECKING:
    from bnn_deploy.training.processes import Processes
    from bnn_deploy.training.step import Step

# What a worker prepares at a time: little, so that few images wait in memory however large a batch is.
_CHUNK = 32

# Images with their labels, or why there are none.
_Part: TypeAlias = tuple[torch.Tensor, torch.Tensor] | BnnDeployError


@dataclass(frozen=True)
class TrainingBatch:
    """What one optimizer step of one process learns from.

    Attributes:
        images: float32 (n, channels, height, width).
        labels: int64 (n,), of the images before any mixing.
        targets: float32 (n, classes), the share of each class; rows sum to 1.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor


def batches_per_epoch(data: TrainingData, step: Step) -> int:
    """Optimizer steps of an epoch; the images that fill no batch are left out of it, other ones each time.

    Raises:
        InputError: fewer images than one batch takes.
    """
    count = len(data.train) // step.batch_size
    if count == 0:
        raise InputError(
            f"{data.source}: has {len(data.train)} training images, but step {step.name!r} takes batches of {step.batch_size}; "
            f"add images or give --batch-size {_power_below(len(data.train))}."
        )
    return count


def training_batches(
    data: TrainingData,
    step: Step,
    *,
    seed: int,
    epoch: int,
    processes: Processes,
    first: int = 0,
    workers: int = 0,
) -> Iterator[TrainingBatch]:
    """The batches of this process from number ``first`` of the epoch on.

    Batch k is the same set of ``step.batch_size`` images for any number of processes, each of which takes its share; all shares
    are equal, see ``options.check_options``.

    Raises:
        InputError: fewer images than one batch takes, or a picture that cannot be read.
        ToolError: the step needs torchvision and there is none that works.
    """
    count = batches_per_epoch(data, step)
    order = torch.randperm(len(data.train), generator=generator(seed, step.name, epoch, "order")).numpy()
    rows = [
        order[number * step.batch_size : (number + 1) * step.batch_size][processes.rank :: processes.count]
        for number in range(first, count)
    ]
    classes = len(data.class_names)
    augmented = Augmented(data.train, step, seed, epoch)
    for number, (images, labels) in enumerate(_loaded(data.train, augmented.prepared, rows, workers), first):
        targets = torch.nn.functional.one_hot(labels, classes).float()
        # The same draws in all processes, as if they had one batch.
        images, targets = mixed(images, targets, step, dice(seed, step.name, epoch, "mixing", number))
        yield TrainingBatch(images, labels, targets)


def test_batches(
    images: Images, *, batch_size: int, processes: Processes, workers: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(images float32 (n, channels, height, width), labels int64 (n,)): this process's share, each image once.

    Raises:
        InputError: a picture that cannot be read.
    """
    mine = np.arange(processes.rank, len(images), processes.count)
    rows = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    yield from _loaded(images, images.prepared, rows, workers)


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test where it is imported


class _Prepared(Dataset[tuple[torch.Tensor, int] | BnnDeployError]):
    """Images for torch's DataLoader; errors are values, since it would wrap them in the traceback of its worker."""

    def __init__(self, images: Images, prepare: Callable[[int], np.ndarray]) -> None:
        self._images, self._prepare = images, prepare

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | BnnDeployError:
        try:
            return torch.from_numpy(self._prepare(index)), int(self._images.labels[index])
        except BnnDeployError as error:
            return error


def _loaded(
    images: Images, prepare: Callable[[int], np.ndarray], rows: list[np.ndarray], workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One pair for each of ``rows``."""
    chunks = (batch[start : start + _CHUNK].tolist() for batch in rows for start in range(0, len(batch), _CHUNK))
    loader = DataLoader(
        _Prepared(images, prepare),
        batch_sampler=chunks,
        num_workers=workers,
        collate_fn=_collated,
        # Without one of its own it would draw from torch's.
        generator=torch.Generator(),
    )
    ready = iter(loader)
    for batch in rows:
        parts = []
        for _ in range(0, len(batch), _CHUNK):
            part = _next(ready, workers)
            if isinstance(part, BnnDeployError):
                raise part
            parts.append(part)
        yield torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _next(ready: Iterator[_Part], workers: int) -> _Part:
    try:
        return next(ready)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ToolError(
            f"One of {workers} worker processes that prepare images has ended ({message_lines(error)[0]}); give fewer --workers, "
            "or 0, where memory is short."
        ) from error


def _collated(
    items: list[tuple[torch.Tensor, int] | BnnDeployError],
) -> _Part:
    pairs = []
    for item in items:
        if isinstance(item, BnnDeployError):
            return item
        pairs.append(item)
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


def _power_below(count: int) -> int:
    return 1 << (count.bit_length() - 1)
