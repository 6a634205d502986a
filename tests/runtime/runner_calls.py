"""Calls of the runner, and what one that refuses to work must look like."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np


def call(program: Path | list[str], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it, or an emulator with it, without any variables of the environment."""
    command = [*(program if isinstance(program, list) else [str(program)]), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={}, capture_output=True, text=True, errors="replace", timeout=60)


def assert_refused(result: subprocess.CompletedProcess[str], message: str, folder: Path) -> None:
    """One sentence, exit status 2, and no file ``y.npy…``."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("runner: ") and message in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.endswith(".\n")
    assert not [path for path in folder.iterdir() if path.name.startswith("y.npy")]


def saved(array: np.ndarray) -> bytes:
    """The bytes of its .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
