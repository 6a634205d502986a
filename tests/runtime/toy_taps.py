"""Taps of the toy network, by hand, and what they must see, by numpy."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from tests.runtime.toy_network import BATCH, HIDDEN, INPUTS, constants

OUTPUT, ARENA, WORKSPACE = 1, 3, 4
# (step, space, offset, shape), one after the other in the values.
VALUES = {
    "scaled": (1, ARENA, 0, (BATCH, INPUTS)),
    "sums": (2, ARENA, 384, (BATCH, HIDDEN)),
    "logits": (3, OUTPUT, 0, (BATCH, HIDDEN)),
}
TOTAL_BYTES = 4 * (BATCH * INPUTS + 2 * BATCH * HIDDEN)


def tap(step: int, space: int, offset: int, size: int, value_offset: int = 0, **others: int) -> tuple[int, ...]:
    """One row, in the order of bnn_model.h."""
    numbers = {"kernel_set": 0, "stride": 0, "every": 1, "force": 0, **others}
    place = (numbers["kernel_set"], step, space, offset, numbers["stride"], numbers["every"])
    return (*place, size, value_offset, numbers["force"])


def toy_taps(force: Collection[str] = ()) -> np.ndarray:
    """Taps of all values."""
    rows, end = [], 0
    for name, (step, space, offset, shape) in VALUES.items():
        size = 4 * int(np.prod(shape))
        rows.append(tap(step, space, offset, size, end, force=int(name in force)))
        end += size
    return np.array(rows, np.int64)


def toy_forced(rows: int, seed: int = 3) -> dict[str, np.ndarray]:
    """Other values than the network's own, whole numbers, for so many images."""
    random = np.random.default_rng(seed)
    return {
        name: random.integers(-9, 10, (rows, shape[1])).astype(np.float32) for name, (_, _, _, shape) in VALUES.items()
    }


def toy_bytes(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 (batches, TOTAL_BYTES) of all values."""
    batches = len(values["logits"]) // BATCH
    return np.concatenate([values[name].reshape(batches, -1).view(np.uint8) for name in VALUES], axis=1)


def toy_values(
    array: np.ndarray, forced: Mapping[str, np.ndarray], seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the taps see when some values are forced, and the output."""
    scale, weight, bias = constants(seed)
    values = {"scaled": array * scale}
    values["sums"] = forced.get("scaled", values["scaled"]) @ weight.T
    values["logits"] = forced.get("sums", values["sums"]) + bias
    return values, forced.get("logits", values["logits"])
