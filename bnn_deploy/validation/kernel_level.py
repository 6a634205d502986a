"""Level 1: does each kernel, given the same values, compute the same numbers as an exact evaluation of the compiled network?

Every value that the kernels hand to each other is compared, and then replaced by the expected one: a fault shows where it is, and
nowhere else. On processors both sides round alike, so that results are equal bit for bit; on GPUs floats may differ by the margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bnn_deploy.bundle.tensor_table import Key, TensorTable
from bnn_deploy.progress import ReportProgress, quiet
from bnn_deploy.validation.patterns import PATTERNS, EdgeSource, forced_values
from bnn_deploy.validation.report import LevelResult, TensorResult
from bnn_deploy.validation.tally import Occasion, Tally

NAME = "kernels"
REFERENCE = "exact evaluation"


class TappedSession(Protocol):
    """A session that can look inside, see ``devices.Session``."""

    def run_tapped(
        self, array: np.ndarray, taps: np.ndarray, total_bytes: int, forced: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, uint8 (batches, total_bytes) of observed values)."""
        ...


class ComputedValue(Protocol):
    """One result of an evaluation, in the layout of memory."""

    @property
    def tensor(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def array(self) -> np.ndarray: ...


class Evaluation(EdgeSource, Protocol):
    """A network that can be evaluated exactly, see ``exact.ExactNetwork``."""

    def values(
        self, images: np.ndarray, forced: Mapping[Key, np.ndarray], steps: Mapping[Key, int]
    ) -> Iterable[ComputedValue]:
        """The results of one batch in execution order; ``forced`` ones are given as computed, but read as forced by others
        than their own step."""
        ...


@dataclass(frozen=True)
class LevelOutcome:
    """A level's result, and one sentence for each thing that limits it."""

    result: LevelResult
    warnings: tuple[str, ...]


def compare_kernels(
    session: TappedSession,
    network: Evaluation,
    table: TensorTable,
    batches: Sequence[np.ndarray],
    *,
    float_margin: float | None = None,
    patterns: Sequence[str] = PATTERNS,
    seed: int = 0,
    progress: ReportProgress = quiet,
) -> LevelOutcome:
    """Compare every value of the table on every batch and pattern.

    Args:
        session: the bundle on its device.
        network: what the compiler meant.
        table: where the bundle holds its values.
        batches: the images of each batch of the bundle.
        float_margin: None where floats must be equal bit for bit, else the part of the largest that they may differ by.
        patterns: of ``PATTERNS``.
        seed: of what is forced.
        progress: told of every batch.
    """
    tallies = {entry.key: Tally(entry) for entry in table.entries}
    missing: set[Key] = set()
    rng = np.random.default_rng(seed)
    for pattern in patterns:
        for number, images in enumerate(batches):
            progress(f"level 1: {pattern}, batch {number + 1} of {len(batches)}")
            occasion = Occasion(number * len(images), len(images), pattern)
            forced = forced_values(pattern, table, network, rng)
            expected = _expected(network, table, images, forced)
            known = table.select(expected.keys())
            missing.update(tallies.keys() - expected.keys())
            given = known.join({**expected, **{key: forced[key] for key in forced if key in expected}})
            _, observed = session.run_tapped(images, known.taps(force=set(expected)), known.total_bytes, given)
            for key, found in known.split(observed).items():
                tally = tallies[key]
                if float_margin is None or key[1] == "words":
                    tally.add_exact(expected[key], found, occasion)
                else:
                    entry = tally.entry
                    tally.add_floats(entry.to_onnx(expected[key]), entry.to_onnx(found), float_margin, occasion)
    rows = tuple(tally.result() for key, tally in tallies.items() if key not in missing)
    total = sum(len(images) for images in batches)
    passed = bool(rows) and all(row.passed for row in rows)
    result = LevelResult(1, NAME, REFERENCE, total, tuple(patterns), rows, passed)
    return LevelOutcome(result, tuple(_warnings(rows, missing)))


def _expected(
    network: Evaluation, table: TensorTable, images: np.ndarray, forced: Mapping[Key, np.ndarray]
) -> dict[Key, np.ndarray]:
    steps = {entry.key: entry.step for entry in table.entries}
    dtypes = {"words": np.uint32, "floats": np.float32}
    expected: dict[Key, np.ndarray] = {}
    for value in network.values(images, forced, steps):
        key = value.tensor, value.kind
        # Of the same value in several layouts the first is the one that the table knows.
        if key in steps and key not in expected:
            expected[key] = np.ascontiguousarray(value.array, dtypes[value.kind])
    return expected


def _warnings(rows: Sequence[TensorResult], missing: set[Key]) -> Iterator[str]:
    if not rows:
        yield "Level 1 compared nothing: no value of the bundle is known to the evaluation of its model; compile it again."
    elif missing:
        names = ", ".join(sorted(f"{tensor} ({kind})" for tensor, kind in missing)[:3])
        yield f"Level 1 left out {len(missing)} values of the bundle that the evaluation of its model does not have: {names}."
