"""Images in .npy and .npz files, and folders of them.

Everything is read in batches, so memory stays flat whatever the size. Files are not trusted: nothing is unpickled, and
the shape, dtype and size that a file declares are checked before anything is allocated.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from bnn_deploy.data.dataset import Batch, Dataset, Identity
from bnn_deploy.errors import InputError, message_lines

SUFFIXES = (".npy", ".npz")
IMAGE_NAMES = ("x", "images")
LABEL_NAMES = ("y", "labels")


def open_arrays(source: Path, files: Sequence[Path], shape: tuple[int, ...], classes: int) -> Dataset:
    """The images of all ``files`` in that order; labelled if every file has labels.

    Args:
        source: the file or the folder, for reports.
        files: .npz files (``x`` or ``images``, and optionally ``y`` or ``labels``) and .npy files.
        shape: shape of one image, without batch.
        classes: labels must be in [0, classes).

    Raises:
        InputError: wrong names, shape, dtype or size; labels that do not fit.
    """
    parts = [_open_file(file, shape, classes) for file in files]
    labelled = all(labels is not None for _, labels in parts)

    def chunks_from(start: int, size: int) -> Iterator[Batch]:
        for images, labels in parts:
            count = images.shape[0]
            position, start = min(start, count), max(0, start - count)
            if position == count:
                continue
            for rows in images.rows(size, position):
                yield rows, labels[position : position + len(rows)] if labels is not None and labelled else None
                position += len(rows)

    def identity() -> Identity:
        return {"kind": "arrays", "digest": listing_digest([(file.name, file) for file in files])}

    return Dataset(
        str(source),
        sum(images.shape[0] for images, _ in parts),
        labelled,
        lambda size: chunks_from(0, size),
        chunks_from=chunks_from,
        find_identity=identity,
    )


def listing_digest(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 of names, sizes and times of change of ``files`` (name to be told by, where it is), in order."""
    digest = hashlib.sha256()
    for name, path in files:
        facts = os.stat(path)
        digest.update(os.fsencode(name) + f"\0{facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def load_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Map a .npy file of float32 images (n, *shape) read-only.

    Raises:
        InputError: not a .npy file, or another shape, dtype or size than expected.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a .npy file of float32 images (N, {_dimensions(shape)}).")
    stored = StoredArray.describe(path)
    _require_images(stored, shape)
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


@dataclass(frozen=True)
class StoredArray:
    """An array in a .npy file, or in the member ``member`` of a .npz file, whose header has been checked."""

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def where(self) -> str:
        """How errors name it."""
        return str(self.path) if self.member is None else f"{self.path}, array {self.member.removesuffix('.npy')!r}"

    @classmethod
    def describe(cls, path: Path, member: str | None = None) -> StoredArray:
        """Read and check the header; no data is read and nothing of its size is allocated.

        Raises:
            InputError: not numpy's format, Python objects, Fortran order, or a size other than the header says.
        """
        where = str(path) if member is None else f"{path}, array {member.removesuffix('.npy')!r}"
        with _opened(path, member) as (stream, stored_bytes):
            shape, fortran_order, dtype = _read_header(stream, where)
            header_bytes = stream.tell()
        if dtype.hasobject:
            raise InputError(f"{where}: holds Python objects, which are never loaded; save it as a float32 array.")
        if fortran_order and len(shape) > 1:
            raise InputError(f"{where}: stored in Fortran order; save numpy.ascontiguousarray(array) instead.")
        expected = prod(shape) * dtype.itemsize
        if stored_bytes - header_bytes != expected:
            raise InputError(
                f"{where}: {dtype} {shape} takes {expected} bytes, but the file holds {stored_bytes - header_bytes}; "
                "it is truncated or altered, save it again."
            )
        return cls(path, member, shape, dtype)

    def rows(self, size: int, start: int = 0) -> Iterator[np.ndarray]:
        """The array from row ``start`` on in pieces of ``size`` along the first dimension.

        Raises:
            InputError: the data ends early or fails its checksum.
        """
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        with _opened(self.path, self.member) as (stream, _):
            _read_header(stream, self.where)
            stream.seek(start * row_bytes, os.SEEK_CUR)
            for position in range(start, self.shape[0], size):
                count = min(size, self.shape[0] - position)
                data = stream.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise InputError(f"{self.where}: ends in the middle of image {position}; save it again.")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[tuple[IO[bytes], int]]:
    try:
        if member is None:
            with open(path, "rb") as file:
                yield file, os.fstat(file.fileno()).st_size
        else:
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield file, archive.getinfo(member).file_size
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: a damaged .npz file ({error}); save it again with numpy.savez.") from error


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"format version {version}")
        shape, fortran_order, dtype = readers[version](stream)
    except ValueError as error:
        raise InputError(
            f"{where}: not a numpy array file ({message_lines(error)[0]}); save it with numpy.save."
        ) from error
    if any(length < 0 for length in shape):
        raise InputError(f"{where}: declares the impossible shape {shape}; save it again with numpy.save.")
    return shape, fortran_order, dtype


def _open_file(path: Path, shape: tuple[int, ...], classes: int) -> tuple[StoredArray, np.ndarray | None]:
    if path.suffix == ".npy":
        images, labels = StoredArray.describe(path), None
    elif path.suffix == ".npz":
        images, labels = _open_npz(path)
    else:
        raise InputError(f"{path}: expected a .npy or .npz file; save the images with numpy.save or numpy.savez.")
    _require_images(images, shape)
    if labels is None:
        return images, None
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{labels.where}: expected {images.shape[0]} integer labels, found {labels.dtype} {labels.shape}; "
            "give one class index per image."
        )
    values = np.concatenate(list(labels.rows(65536))).astype(np.int64)
    if values.min() < 0 or values.max() >= classes:
        raise InputError(
            f"{labels.where}: labels run from {values.min()} to {values.max()}, but the model has {classes} classes; "
            f"labels must be from 0 to {classes - 1}."
        )
    return images, values


def _open_npz(path: Path) -> tuple[StoredArray, StoredArray | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
    except (zipfile.BadZipFile, NotImplementedError) as error:  # the latter: an archive that claims a newer zip
        raise InputError(
            f"{path}: not a .npz file ({error}); save it with numpy.savez(file, x=images, y=labels)."
        ) from error
    image_names = [name for name in IMAGE_NAMES if name in names]
    label_names = [name for name in LABEL_NAMES if name in names]
    if not image_names:
        found = ", ".join(sorted(names)[:8]) or "none"
        raise InputError(
            f"{path}: has no array named 'x' or 'images' (found: {found}); save it with numpy.savez(file, x=images)."
        )
    labels = StoredArray.describe(path, f"{label_names[0]}.npy") if label_names else None
    return StoredArray.describe(path, f"{image_names[0]}.npy"), labels


def _require_images(stored: StoredArray, shape: tuple[int, ...]) -> None:
    if stored.dtype != np.dtype("<f4") or stored.shape[1:] != shape or len(stored.shape) != len(shape) + 1:
        raise InputError(
            f"{stored.where}: expected float32 of shape (N, {_dimensions(shape)}), "
            f"found {stored.dtype} {stored.shape}; convert the images to what the model takes."
        )
    if stored.shape[0] == 0:
        raise InputError(f"{stored.where}: holds no image; expected at least one of shape ({_dimensions(shape)}).")


def _dimensions(shape: tuple[int, ...]) -> str:
    return ", ".join(str(length) for length in shape)
