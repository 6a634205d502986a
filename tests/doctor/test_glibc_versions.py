"""What a library asks of glibc is read from the library, and is what the linker's own tools read."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.doctor.glibc_versions import newest_glibc_needed, parse_version
from bnn_deploy.errors import BundleError

# On x86-64, memcpy is of glibc 2.14 (older ones were another function), secure_getenv of 2.17.
MEMCPY = "#include <string.h>\nvoid use(char *to, const char *from, unsigned long size) { memcpy(to, from, size); }\n"
GETENV = '#include <stdlib.h>\nchar *get(void) { return secure_getenv("HOME"); }\n'


def build(folder: Path, source: str, *options: str) -> Path:
    """A shared library for x86-64 and glibc 2.17, as the linker of bundles makes them."""
    (folder / "use.c").write_text(source)
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "x86_64-linux-gnu.2.17",
        "-shared",
        "-fPIC",
        "-O1",
        "-s",
        "-D_GNU_SOURCE",
    ]
    subprocess.run([*command, *options, "use.c", "-o", "use.so"], cwd=folder, check=True, capture_output=True)
    return folder / "use.so"


@pytest.mark.parametrize(("source", "needed"), [(MEMCPY, (2, 14)), (MEMCPY + GETENV, (2, 17))])
def test_newest_version(tmp_path: Path, source: str, needed: tuple[int, ...]) -> None:
    """Another version than the newest is reported, or what the linker was told instead of what the functions need."""
    assert newest_glibc_needed(build(tmp_path, source)) == needed


def test_no_glibc_at_all(tmp_path: Path) -> None:
    """A library that calls nothing is said to need a certain glibc."""
    assert newest_glibc_needed(build(tmp_path, "int one(void) { return 1; }\n", "-nostdlib")) is None


def test_bundle(pc_bundle: Bundle) -> None:
    """A bundle would be said not to load on the oldest system that docs/bundle.md promises."""
    needed = newest_glibc_needed(pc_bundle.library)
    assert needed is not None and needed <= (2, 17)


def test_versions_are_numbers() -> None:
    """2.4 counts as newer than 2.17."""
    assert parse_version("2.4") < parse_version("2.17") < parse_version("2.36")
    with pytest.raises(ValueError):
        parse_version("glibc")


def test_damaged_libraries(pc_bundle: Bundle, tmp_path: Path) -> None:
    """A library from anywhere ends in a traceback, or in reading without end."""
    content = pc_bundle.library.read_bytes()
    path = tmp_path / "model.so"
    for wrong in (b"", b"\x7fELF\x01\x01" + content[6:], content[:64], content[: len(content) // 2], b"#!/bin/sh\n"):
        path.write_bytes(wrong)
        with pytest.raises(BundleError, match="compile the bundle again"):
            newest_glibc_needed(path)
    headers = int.from_bytes(content[0x28:0x30], "little")
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[generator.randrange(headers, len(content))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            newest_glibc_needed(path)
        except BundleError as error:
            assert "model.so" in str(error)
    with pytest.raises(BundleError, match="cannot be read"):
        newest_glibc_needed(tmp_path / "missing.so")
