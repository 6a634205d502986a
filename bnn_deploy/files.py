"""Files: written whole or not at all, and known again by their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from bnn_deploy.errors import InputError


def require_writable(path: Path) -> None:
    """Raise InputError unless a file can be made at ``path``: to be called before long work."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of the file to write.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} is not writable; choose another output.")


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file at exactly ``path``: whole or, after an error, not at all."""
    write_whole(path, lambda file: np.save(file, array, allow_pickle=False))


def write_whole(path: Path, write: Callable[[IO[bytes]], object], durable: bool = False) -> None:
    """Make the file ``path`` of what ``write`` puts into a stream: whole or, after an error, not at all.

    Args:
        durable: it is on the disk, and not only in the system's memory, before an older file of that name is given up.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        # The user knows `path`, not our temporary name.
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another output.") from error
    finally:
        partial.unlink(missing_ok=True)


def remove_left_overs(path: Path) -> None:
    """Delete the unfinished files that ``write_whole`` of processes that were killed left beside ``path``."""
    for entry in os.scandir(path.parent):
        number = entry.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if entry.name != f".{path.name}.{number}.partial" or not number.isdigit():
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            with suppress(OSError):
                os.unlink(entry.path)
        except (OSError, OverflowError):
            pass  # it runs, and is somebody else's


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
