"""The newest glibc that a shared library asks for, from its ELF file."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from bnn_deploy.errors import BundleError

# Section header types, see "man 5 elf" and the Linux Standard Base, chapter "Symbol Versioning".
VERSION_NEEDS = 0x6FFFFFFE
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry
NEEDED_LIBRARY = struct.Struct("<HHIII")  # version, count of names, library, offset of the names, offset of the next
NEEDED_NAME = struct.Struct("<IHHII")  # hash, flags, other, name, offset of the next

# A library of ours has a dozen; damaged ones may link round in circles.
MAX_NAMES = 10_000


def newest_glibc_needed(library: Path) -> tuple[int, ...] | None:
    """The highest ``GLIBC_x.y`` among a library's version needs, None if it needs no versioned glibc.

    Args:
        library: a 64-bit little-endian ELF file, such as a bundle's ``model.so``.

    Raises:
        BundleError: it is no such file, or damaged.
    """
    try:
        content = library.read_bytes()
    except OSError as error:
        raise BundleError(f"{library} cannot be read: {error.strerror}.") from error
    if content[:6] != b"\x7fELF\x02\x01":
        raise BundleError(f"{library} is not a 64-bit little-endian ELF file; compile the bundle again.")
    try:
        names = _needed_versions(content)
    except (struct.error, ValueError, OverflowError) as error:
        raise BundleError(f"The ELF headers of {library} are damaged; compile the bundle again.") from error
    found = [match for match in map(re.compile(r"GLIBC_(\d+(?:\.\d+)*)").fullmatch, names) if match]
    return max((parse_version(match[1]) for match in found), default=None)


def parse_version(text: str) -> tuple[int, ...]:
    """``"2.36"`` as ``(2, 36)``, so that 2.4 is older than 2.17.

    Raises:
        ValueError: it is something else.
    """
    return tuple(int(part) for part in text.split("."))


def _needed_versions(content: bytes) -> list[str]:
    (offset,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    if size != SECTION_HEADER.size:
        raise ValueError("unknown section headers")
    sections = [SECTION_HEADER.unpack_from(content, offset + index * size) for index in range(count)]
    found: list[str] = []
    for section in sections:
        if section[1] == VERSION_NEEDS:
            if section[6] >= count:
                raise ValueError("no string table")
            found += _names(content, section[4], sections[section[6]][4])
    return found


def _names(content: bytes, library_at: int, strings: int) -> Iterator[str]:
    """The version names of one section; its entries are two nested lists, linked by offsets, which end with 0."""
    left = MAX_NAMES
    while True:
        _, _, _, names_offset, next_library = NEEDED_LIBRARY.unpack_from(content, library_at)
        name_at = library_at + names_offset
        while True:
            *_, name, next_name = NEEDED_NAME.unpack_from(content, name_at)
            end = content.index(b"\0", strings + name)
            yield content[strings + name : end].decode("ascii", errors="replace")
            left -= 1
            if left == 0:
                raise ValueError("too many names")
            name_at += next_name
            if next_name == 0:
                break
        library_at += next_library
        if next_library == 0:
            break
