"""Writes several files: all of them whole, or none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bnn_deploy.errors import InputError


def check_outputs(paths: Iterable[Path]) -> None:
    """To be called before long work.

    Raises:
        InputError: two of ``paths`` are the same file, or one cannot be made.
    """
    seen: set[Path] = set()
    for path in paths:
        absolute = Path(os.path.realpath(path))
        if absolute in seen:
            raise InputError(f"{path}: is asked for twice; give each output a file of its own.")
        seen.add(absolute)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of the file to write.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no ordinary file; give the name of the file to write.")
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; make it first.")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path}: the folder {path.parent} is not writable; choose another output.")


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write each content to its path; older files there are replaced when all new ones are complete.

    Raises:
        InputError: one cannot be written; then none is.
    """
    check_outputs(contents)
    partial = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in contents}
    path = Path()
    try:
        for path, content in contents.items():
            with open(partial[path], "xb") as file:
                file.write(content)
        for path in contents:
            os.replace(partial[path], path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another output.") from error
    finally:
        for temporary in partial.values():
            temporary.unlink(missing_ok=True)
