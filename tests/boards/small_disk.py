"""A file system of its own below a folder: small, read-only or without programs, as the memory cards of boards can be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs with ``mount``'s options, such as "size=256k" or "noexec", at ``folder``, which is made if need be.

    Needs root, or sudo without a password; without, the test skips, and fails in continuous integration (CI is set).
    """
    folder.mkdir(parents=True, exist_ok=True)
    may = [] if os.geteuid() == 0 else ["sudo", "-n"]
    own = f"{options},uid={os.getuid()},gid={os.getgid()},mode=755"
    result = subprocess.run(
        [*may, "mount", "-t", "tmpfs", "-o", own, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if result.returncode != 0:
        sentence = f"cannot mount a file system: {result.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    try:
        yield
    finally:
        subprocess.run([*may, "umount", "-l", str(folder)], check=True)
