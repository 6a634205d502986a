"""Named arrays in one .npz file, the same bytes for the same arrays, and read without trust.

The file is what numpy.load reads: a zip of .npy files, stored without compression, so that nothing in memory is larger than
the file. All numbers are little-endian, in C order.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from bnn_deploy.errors import InputError
from bnn_deploy.files import write_whole

_ALIGNMENT = 64


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file: whole or, after an error, not at all.

    Raises:
        InputError: it cannot be written.
    """

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                # The date is zip's first: the time of writing is no part of what is recorded.
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.external_attr = 0o644 << 16
                entry.create_system = 3
                content = np.ascontiguousarray(array)
                content = content.astype(content.dtype.newbyteorder("<"), copy=False)
                size = array.nbytes
                with archive.open(entry, "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as member:
                    member.write(_header(content.dtype, content.shape))
                    member.write(content.reshape(-1).view(np.uint8).data)

    write_whole(path, write)


class StoredArrays:
    """A file of ``write_arrays``; ``take`` reads an array of a type and shape that the caller knows."""

    def __init__(self, path: Path, what: str) -> None:
        """Check the list of arrays; nothing else is read.

        Args:
            path: the file.
            what: what it should be, for messages, such as "golden file".

        Raises:
            InputError: no such file, no such format, or sizes that do not add up.
        """
        self.path, self.what = path, what
        try:
            size = path.stat().st_size
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give a {what}.") from error
        except _DAMAGE as error:
            raise InputError(
                f"{path}: is no {what}, or is truncated ({type(error).__name__}); copy or record it again."
            ) from error
        self.sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in entries}
        stored = all(
            entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size for entry in entries
        )
        # Members that overlap could be read many times over.
        if not stored or sum(self.sizes.values()) > size or len(self.sizes) != len(entries):
            raise self.damaged("its arrays are compressed, doubled, or larger than the file")

    def damaged(self, why: str) -> InputError:
        """The error that says so."""
        return InputError(f"{self.path}: is no {self.what} of bnn-deploy, or is damaged: {why}; record it again.")

    def take(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array; its size is compared with the file's before anything of that size is made.

        Raises:
            InputError: it is not there, or of another type or shape, or its checksum is wrong.
        """
        kind = np.dtype(dtype).newbyteorder("<")
        header = _header(kind, shape)
        expected = len(header) + prod(shape) * kind.itemsize
        if self.sizes.get(name) != expected:
            found = "is missing" if name not in self.sizes else f"takes {self.sizes[name]} bytes, expected {expected}"
            raise self.damaged(f"array {name!r} {found}")
        content = self.content(name)
        if not content.startswith(header):
            raise self.damaged(f"array {name!r} is not {kind} of shape {shape}")
        array = np.frombuffer(content, kind, offset=len(header)).reshape(shape)
        return array.astype(kind.newbyteorder("="), copy=False)

    def content(self, name: str) -> bytes:
        """The bytes of one .npy file.

        Raises:
            InputError: it is not there, or its checksum is wrong.
        """
        if name not in self.sizes:
            raise self.damaged(f"array {name!r} is missing")
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(f"{name}.npy")
        except (*_DAMAGE, OSError) as error:
            raise self.damaged(f"array {name!r} cannot be read ({type(error).__name__})") from error

    def text(self, name: str, limit: int) -> bytes:
        """The bytes that an array of uint8 holds, at most ``limit``.

        Raises:
            InputError: it is not there, too long, or no such array.
        """
        total = self.sizes.get(name, 0)
        # The header's length follows from its text's, which has no more digits than the length of the whole.
        for size in range(max(0, total - 2 * _ALIGNMENT), total):
            if size <= limit and len(_header(np.dtype(np.uint8), (size,))) + size == total:
                return self.take(name, "uint8", (size,)).tobytes()
        raise self.damaged(f"array {name!r} is missing or has {total} bytes")


# What zipfile raises for bytes that are no zip file, or one of a kind that it does not know.
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError, OverflowError)


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file, version 1.0, spelled here so that it never depends on numpy's version."""
    sizes = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {sizes}, }}"
    padding = -(10 + len(text) + 1) % _ALIGNMENT
    content = f"{text}{' ' * padding}\n".encode("latin-1")
    return b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content
