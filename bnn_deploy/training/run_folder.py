"""The folder of a training run: which ones are taken, and that only one process at a time writes there."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bnn_deploy.errors import InputError
from bnn_deploy.training import checkpoint

RECIPE = "recipe.toml"
WEIGHTS = "weights.safetensors"
RESULT = "result.json"
# What a run that was killed while it wrote a file leaves of it, see ``files.write_whole``.
_PARTIAL = re.compile(r"\.[\w.-]+\.\d+\.partial")


def weights_file(step: str) -> str:
    """The name of the file with the weights of a step."""
    return f"{step}.safetensors"


def has_run(folder: Path, resume: bool) -> bool:
    """Whether ``folder`` holds a run to go on with. Nothing is made or changed.

    Raises:
        InputError: it holds a run and is not to be resumed, or holds anything else, or cannot be made or written.
    """
    if not os.path.lexists(folder):
        if not folder.parent.is_dir():
            raise InputError(f"{folder}: the folder {folder.parent} does not exist; make it first.")
        return False
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the name of a new one for the run.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: is not writable; choose another output folder.")
    if (folder / checkpoint.NAME).is_file():
        if not resume:
            raise InputError(
                f"{folder}: already holds a training run; add --resume to go on with it, or choose another output folder."
            )
        return True
    others = sorted(name for name in os.listdir(folder) if not _PARTIAL.fullmatch(name))
    if others:
        raise InputError(
            f"{folder}: holds {others[0][:80]!a} but no training run (no {checkpoint.NAME}); choose an empty or a new folder."
        )
    return False


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be, and keep it for this process; the system ends that however the process ends.

    Raises:
        InputError: it cannot be made, or another training run is writing there.
    """
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made or opened ({error.strerror}); choose another output folder."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another training run is writing there; wait for its end, or choose another output folder."
            ) from error
        except OSError:
            pass  # A file system without locks.
        for name in os.listdir(folder):
            if _PARTIAL.fullmatch(name):
                with suppress(OSError):
                    os.unlink(folder / name)
        yield
    finally:
        os.close(descriptor)
