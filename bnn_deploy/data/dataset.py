"""Images, and labels if any, in batches; and the seeded random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bnn_deploy.errors import InputError

Batch = tuple[np.ndarray, np.ndarray | None]
Identity = dict[str, str]


@dataclass(frozen=True)
class Dataset:
    """Images for a model.

    Attributes:
        source: where they come from, for reports.
        samples: how many there are.
        labelled: every image has a label.
        chunks: ``chunks(size)`` yields (images float32 (n, ...), labels int64 (n,) or None) with 1 <= n <= size.
        note: what the user must know about this data, or "".
        chunks_from: ``chunks_from(start, size)`` does the same from image ``start`` on without reading those before it;
            None if there is nothing to be saved by that.
        find_identity: see ``identity``; None if ``source`` says it all.
    """

    source: str
    samples: int
    labelled: bool
    chunks: Callable[[int], Iterator[Batch]]
    note: str = ""
    chunks_from: Callable[[int, int], Iterator[Batch]] | None = None
    find_identity: Callable[[], Identity] | None = None

    def batches(self, size: int, samples: int | None = None, start: int = 0) -> Iterator[Batch]:
        """Images ``start`` to ``samples`` (all if None) in batches of ``size``; the last one may be smaller."""
        remaining = (self.samples if samples is None else samples) - start
        images: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        held = 0
        if remaining <= 0:
            return
        for chunk_images, chunk_labels in self._from(start, size):
            first = 0
            while first < len(chunk_images) and remaining > 0:
                take = min(size - held, len(chunk_images) - first, remaining)
                images.append(chunk_images[first : first + take])
                if chunk_labels is not None:
                    labels.append(chunk_labels[first : first + take])
                first, held, remaining = first + take, held + take, remaining - take
                if held == size or remaining == 0:
                    yield np.concatenate(images), np.concatenate(labels) if self.labelled else None
                    images, labels, held = [], [], 0
            if remaining == 0:
                return
        if held:
            yield np.concatenate(images), np.concatenate(labels) if self.labelled else None

    def number_asked(self, samples: int | None) -> int:
        """``samples``, or how many there are if that is None.

        Raises:
            InputError: there are fewer.
        """
        if samples is not None and samples > self.samples:
            raise InputError(
                f"{self.source}: holds {self.samples} images, fewer than --samples {samples}; ask for fewer."
            )
        return self.samples if samples is None else samples

    def identity(self) -> Identity:
        """What tells these images from others wherever they lie, for going on with an interrupted run."""
        if self.find_identity is not None:
            return self.find_identity()
        return {"kind": "generated", "source": self.source}

    def _from(self, start: int, size: int) -> Iterator[Batch]:
        if self.chunks_from is not None:
            yield from self.chunks_from(start, size)
            return
        skipped = 0
        for images, labels in self.chunks(size):
            first = min(len(images), start - skipped)
            skipped += first
            if first < len(images):
                yield images[first:], None if labels is None else labels[first:]


def random_inputs(shape: tuple[int, ...], samples: int, seed: int = 0) -> Dataset:
    """Seeded standard normal images of ``shape`` (without batch), the same for any batch size."""

    def chunks(size: int) -> Iterator[Batch]:
        generator = np.random.default_rng(seed)
        for start in range(0, samples, size):
            yield generator.standard_normal((min(size, samples - start), *shape), dtype=np.float32), None

    return Dataset(
        f"normal inputs, seed {seed}",
        samples,
        False,
        chunks,
        "Random inputs keep no margin from the thresholds of the model, so a few signs may flip between two correct "
        "implementations; give --data with real images for a verdict.",
    )
