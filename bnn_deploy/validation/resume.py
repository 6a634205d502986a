"""The totals of a long run in a file, so that it can be interrupted anywhere and goes on from there.

The file is JSON, and is replaced as a whole: a run that is killed leaves the totals as they were some images before. It
names everything that the totals depend on, and another run refuses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from bnn_deploy.checked_fields import Fields, choice, list_of, object_of, read_json, shown, text, whole
from bnn_deploy.errors import InputError, Interrupted, message_lines
from bnn_deploy.files import file_sha256, remove_left_overs, require_writable, write_whole
from bnn_deploy.version import __version__

if TYPE_CHECKING:
    from bnn_deploy.bundle.bundle import Bundle
    from bnn_deploy.data.dataset import Dataset

FORMAT = "bnn-deploy/validation-state/1"
EVERY_IMAGES = 1024
EVERY_SECONDS = 10.0
_LARGEST_FILE = 2**20

# What an entry of the fingerprint says, for the sentence that refuses a state.
_MEANINGS = {
    "version": "version of bnn-deploy",
    "onnx": "ONNX file",
    "bundle": "bundle",
    "kind": "kind of data",
    "digest": "names, sizes or times of the data files",
    "source": "data",
    "samples": "number of images",
    "batch": "size of batches",
    "reference": "reference",
    "target": "target",
    "device": "device",
}


class Resumable(Protocol):
    """Totals that can be kept as JSON."""

    def to_state(self) -> dict[str, Any]:
        """The totals, exactly."""

    def load_state(self, fields: Fields) -> None:
        """Take them over; raises ValueError for what ``to_state`` did not make."""


class _Terminated(BaseException):
    """SIGTERM, as an exception like KeyboardInterrupt."""


def fingerprint(
    onnx_path: Path | None,
    bundle: Bundle,
    dataset: Dataset,
    *,
    samples: int,
    batch: int,
    reference: str,
    device: str,
    others: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Everything that the totals of a run depend on; where files lie makes no difference.

    Args:
        onnx_path: the model, None if a golden file stands for it.
        samples: images of the whole run.
        batch: images at a time; results of the reference may depend on it.
        others: more of it, such as the hash of a golden file.
    """
    from bnn_deploy.bundle.manifest import NAME

    return {
        "version": __version__,
        "onnx": "" if onnx_path is None else file_sha256(onnx_path),
        # It holds the hashes of all other files of the bundle.
        "bundle": file_sha256(bundle.path / NAME),
        "target": bundle.target,
        "device": device,
        "reference": reference,
        "samples": str(samples),
        "batch": str(batch),
        **dataset.identity(),
        **(others or {}),
    }


class RunState:
    """The state file of one run."""

    def __init__(self, path: Path, identity: Mapping[str, str], parts: Mapping[str, Resumable] | None = None) -> None:
        """Nothing is read or written yet.

        Args:
            path: the file; it need not exist.
            identity: see ``fingerprint``.
            parts: more totals than those of ``load``, by name.
        """
        self.path = path
        self._identity = dict(identity)
        self._parts = dict(parts or {})
        self._samples = 0
        self._position = 0
        self._snapshot: tuple[int, dict[str, Any]] | None = None
        self._saved_position = 0
        self._saved_at = time.monotonic()

    def load(self, parts: Mapping[str, Resumable], samples: int, batch: int) -> int:
        """Take over the totals of an earlier run, if the file exists.

        Args:
            parts: the totals to keep, and to load.
            samples: images of the whole run.
            batch: it goes on at a whole multiple of it.

        Returns:
            how many images were done, 0 if there is no file.

        Raises:
            InputError: the file is another run's, or damaged, or cannot be written.
        """
        self._parts.update(parts)
        self._samples = samples
        require_writable(self.path)
        remove_left_overs(self.path)
        if os.path.lexists(self.path):
            try:
                self._position = self._take_over(_read(self.path), samples, batch)
            except ValueError as error:
                raise InputError(
                    f"{self.path}: not a state file that can be used ({message_lines(error)[0]}); remove it to start "
                    "from the first image, or give another name."
                ) from error
        self._saved_position = self._position
        self._saved_at = time.monotonic()
        return self._position

    def reached(self, position: int) -> None:
        """All totals are now those of the first ``position`` images; they are written from time to time, and at the end."""
        totals = {name: part.to_state() for name, part in self._parts.items()}
        # One assignment, so that an interruption finds the totals of one position or of the other.
        self._snapshot = (position, totals)
        late = time.monotonic() - self._saved_at >= EVERY_SECONDS
        if late or position - self._saved_position >= EVERY_IMAGES or position == self._samples:
            self.save()

    def save(self) -> int:
        """Write what was last reached; returns its position."""
        if self._snapshot is None:
            return self._position
        position, totals = self._snapshot
        if position > self._saved_position:
            body = {"format": FORMAT, "fingerprint": self._identity, "position": position, "totals": totals}
            content = {**body, "sha256": _digest(body)}
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
            write_whole(self.path, lambda file: file.write(text.encode()), durable=True)
            self._saved_position, self._saved_at = position, time.monotonic()
        return position

    def _take_over(self, fields: Fields, samples: int, batch: int) -> int:
        found = fields.take("fingerprint", object_of(text))
        names = [name for name in {**self._identity, **found} if self._identity.get(name) != found.get(name)]
        if names:
            meaning = _MEANINGS.get(names[0], shown(names[0]))
            raise InputError(
                f"{self.path}: keeps the totals of another run, whose {meaning} was {shown(found.get(names[0]))} and is now "
                f"{shown(self._identity.get(names[0]))}; remove the file to start from the first image, or give another name."
            )
        position = fields.take("position", whole(largest=samples))
        if position % batch and position != samples:
            raise fields.refusal("position", f"a multiple of {batch}, or {samples}")
        totals = fields.inner("totals")
        totals.only(self._parts)
        entries = {name: totals.inner(name) for name in self._parts}
        if any(entry.find("samples", whole()) not in (None, position) for entry in entries.values()):
            raise fields.refusal("totals", f"those of {position} images")
        for name, part in self._parts.items():
            part.load_state(entries[name])
        return position


class KeptCounts:
    """Lists of counts that somebody else adds to, as a part of a state; they are taken over in place."""

    def __init__(self, lists: Mapping[str, list[int]]) -> None:
        self._lists = lists

    def to_state(self) -> dict[str, Any]:
        """Copies of the lists."""
        return {name: list(counts) for name, counts in self._lists.items()}

    def load_state(self, fields: Fields) -> None:
        """Raises ValueError unless there are as many counts as now."""
        for name, counts in self._lists.items():
            counts[:] = fields.take(name, list_of(whole(), len(counts), len(counts)))


@contextmanager
def stoppable(state: RunState | None) -> Iterator[None]:
    """Keep the totals in ``state`` however the block ends; Ctrl-C and SIGTERM end it with ``Interrupted``.

    Without a state nothing is changed.
    """
    if state is None:
        yield
        return
    with _terminate_as_exception():
        try:
            yield
        except (KeyboardInterrupt, _Terminated) as stop:
            position = state.save()
            number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
            kept = (
                f"whose totals are in {state.path}; the same command goes on from there."
                if position
                else "which is none."
            )
            raise Interrupted(f"Interrupted after {position} images, {kept}", 128 + number) from stop
        except BaseException:
            # A board that went away costs no more than its last images. The error itself matters more than a full disk.
            with suppress(InputError):
                state.save()
            raise


@contextmanager
def _terminate_as_exception() -> Iterator[None]:
    # Python delivers signals to the main thread only, and only there may handlers be set.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(path: Path) -> Fields:
    if not path.is_file():
        raise ValueError("it is no file")
    content = read_json(path, _LARGEST_FILE, lambda problem: ValueError(f"it {problem}"))
    fields = Fields(content, ValueError)
    fields.take("format", choice(FORMAT))
    recorded = fields.take("sha256", text)
    if recorded != _digest({name: entry for name, entry in content.items() if name != "sha256"}):
        raise ValueError("its checksum is wrong")
    return fields


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
