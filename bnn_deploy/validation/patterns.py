"""What level 1 puts before the kernels: values that a network's own images bring about rarely, or never.

``data`` forces nothing: the values are those of the images. ``random`` makes every binarised value a coin toss, so that each
word that a kernel reads has bits of both kinds. ``plus`` makes all of them +1 and ``minus`` all of them -1, and the real values
before a threshold lie on it, next to it, at both zeros and among the subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import numpy as np

from bnn_deploy.bundle.tensor_table import Key, TensorEntry, TensorTable

PATTERNS = ("data", "random", "plus", "minus")
# What all binarised values are while real ones lie at their edges.
_FILLS = {"plus": 1, "minus": -1}


class EdgeSource(Protocol):
    """Knows the values and the thresholds, see ``exact.ExactNetwork``."""

    @property
    def shapes(self) -> Mapping[Key, tuple[int, ...]]:
        """Of the values that can be forced, as they lie in memory."""
        ...

    def readers(self, keys: Collection[Key]) -> Mapping[Key, Collection[Key]]:
        """For each of ``keys``, those of them that are computed from it without another of them in between."""
        ...

    def edge_values(self, tensor: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Float32 in the layout of memory, around what ``tensor`` is compared with."""
        ...


def forced_values(
    pattern: str, table: TensorTable, source: EdgeSource, rng: np.random.Generator
) -> dict[Key, np.ndarray]:
    """The values of one batch that take the place of those computed, in the layout of memory."""
    forced: dict[Key, np.ndarray] = {}
    if pattern == "data":
        return forced
    for entry in _forceable(table, source):
        if entry.kind == "words":
            fill = _FILLS.get(pattern)
            signs = _signs(entry, rng) if fill is None else np.full(entry.onnx_shape, fill, np.int8)
            forced[entry.key] = entry.from_onnx(signs)
        elif pattern in _FILLS:
            forced[entry.key] = source.edge_values(entry.tensor, entry.shape, rng)
    return forced


def _forceable(table: TensorTable, source: EdgeSource) -> Iterator[TensorEntry]:
    """Values that everything computed from them reads where they are stored.

    A kernel may have computed a value for itself that a later, or the same, kernel stores: there, forcing makes no difference.
    """
    steps = {entry.key: entry.step for entry in table.entries}
    readers = source.readers(steps.keys())
    for entry in table.entries:
        known = source.shapes.get(entry.key) == entry.shape
        if known and all(steps[reader] > entry.step for reader in readers[entry.key]):
            yield entry


def _signs(entry: TensorEntry, rng: np.random.Generator) -> np.ndarray:
    if entry.ternary:
        return rng.integers(-1, 2, entry.onnx_shape, np.int8)
    return 2 * rng.integers(0, 2, entry.onnx_shape, np.int8) - 1
