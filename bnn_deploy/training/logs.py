"""What a run leaves about its epochs: log.csv, layers.csv, TensorBoard's files, and a line for the terminal."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bnn_deploy.errors import InputError, ToolError
from bnn_deploy.files import write_whole
from bnn_deploy.training.records import EpochRecord

# Those that the clock decides come last: all others are the same in every run on the same machine.
LOG_COLUMNS = (
    "step",
    "epoch",
    "epochs",
    "learning_rate",
    "loss",
    "cross_entropy",
    "divergence",
    "train_accuracy",
    "test_accuracy",
    "test_loss",
    "flip_rate",
    "dead_channels",
    "channels",
    "seconds",
    "images_per_second",
)
LAYER_COLUMNS = ("step", "epoch", "layer", "flipped", "weights", "dead", "channels")
# The columns that become curves in TensorBoard.
_CURVES = LOG_COLUMNS[LOG_COLUMNS.index("learning_rate") :]

LINE_WIDTH = 110


class RunLog:
    """The logs in a run's folder, one line of log.csv and those of its layers in layers.csv for each epoch.

    Floats are written so that reading gives the same bits; what there is not is an empty cell. Lines are on the disk
    when ``add`` returns, so a kill loses at most the one being written. TensorBoard's files lie in ``tensorboard/``, with
    the number of the epoch in the whole run as their step. Only the first process may have one.
    """

    def __init__(self, folder: Path, tensorboard: bool = False, finished: int = 0) -> None:
        """Begin the logs, or take up those of a run that is resumed.

        Args:
            folder: the run's, which exists.
            tensorboard: also write TensorBoard's files.
            finished: epochs that the checkpoint knows to be finished, over all steps; whatever was logged after them is
                removed, since it will be done again. 0 begins anew.

        Raises:
            InputError: the files cannot be read or written, or are no logs of ours.
            ToolError: TensorBoard's package is missing or does not load.
        """
        self._log, self._layers = folder / "log.csv", folder / "layers.csv"
        writer = _summary_writer() if tensorboard else None
        lines = _kept(self._log, LOG_COLUMNS)[:finished] if finished else []
        epochs = {tuple(line[:2]) for line in lines}
        layers = [line for line in _kept(self._layers, LAYER_COLUMNS) if tuple(line[:2]) in epochs] if finished else []
        _write(self._layers, [LAYER_COLUMNS, *layers])
        _write(self._log, [LOG_COLUMNS, *lines])
        self._finished = finished
        # TensorBoard forgets the curves from that step on.
        self._writer = writer and writer(str(folder / "tensorboard"), purge_step=finished + 1)

    def add(self, record: EpochRecord) -> None:
        """Log an epoch that is over; raises InputError if the disk is full or the folder gone."""
        self._finished += 1
        head = (record.step, record.epoch)
        # First the layers, so that whoever finds an epoch in log.csv finds all its layers.
        _append(
            self._layers,
            ((*head, each.layer, each.flipped, each.weights, each.dead, each.channels) for each in record.layers),
        )
        _append(self._log, [[getattr(record, column) for column in LOG_COLUMNS]])
        if self._writer:
            for column in _CURVES:
                value = getattr(record, column)
                if value is not None:
                    self._writer.add_scalar(f"{record.step}/{column}", value, self._finished)
            self._writer.flush()

    def close(self) -> None:
        """Finish TensorBoard's file; nothing can be added any more."""
        if self._writer:
            self._writer.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def epoch_line(record: EpochRecord) -> str:
    """One line of at most 110 characters, such as

    binary 3/20  loss 0.412 (kl 0.301, ce 0.935)  test 96.1 %  flips 1.20 %  dead 3 of 512  2.9 s
    """
    parts = [f"{record.epoch}/{record.epochs}", f"loss {_short(record.loss)}"]
    if record.divergence is not None:
        parts[-1] += f" (kl {_short(record.divergence)}, ce {_short(record.cross_entropy)})"
    parts.append(f"test {100 * record.test_accuracy:.1f} %")
    if record.flip_rate is not None:
        parts.append(f"flips {100 * record.flip_rate:.2f} %")
    if record.dead_channels is not None:
        parts.append(f"dead {record.dead_channels} of {record.channels}")
    parts.append(_duration(record.seconds))
    rest = "  ".join(parts)
    # A name gives way to numbers down to eight letters; beyond that the numbers are not ones that occur.
    space = max(LINE_WIDTH - len(rest) - 1, 8)
    name = record.step if len(record.step) <= space else record.step[: space - 1] + "…"
    return f"{name} {rest}"[:LINE_WIDTH]


def _short(loss: float) -> str:
    return f"{loss:.3f}" if loss < 100 else f"{loss:.1e}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _text(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    content = _text(rows)
    write_whole(path, lambda file: file.write(content), durable=True)


def _append(path: Path, rows: Iterable[Sequence[object]]) -> None:
    try:
        with open(path, "ab") as file:
            file.write(_text(rows))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room or give its folder back, then go on with --resume."
        ) from error


def _kept(path: Path, columns: tuple[str, ...]) -> list[list[str]]:
    """The whole lines below the header; a last one that a kill cut off, and whatever follows it, is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); move it away to go on without it.") from error
    header, *lines = content.split(b"\n")[:-1] or [b""]
    if header != ",".join(columns).encode():
        raise InputError(f"{path}: its first line is not that of this log, {','.join(columns)}; move the file away.")
    rows: list[list[str]] = []
    for line in lines:
        row = next(csv.reader([line.decode(errors="replace")]), [])
        if len(row) != len(columns):
            break
        rows.append(row)
    return rows


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:
        # Not only ImportError: a protobuf of another generation raises a TypeError.
        raise ToolError(
            f"TensorBoard's package does not load ({error}); install the extra bnn-deploy[train], or train without "
            "--tensorboard: log.csv holds the same numbers."
        ) from error
    return SummaryWriter
