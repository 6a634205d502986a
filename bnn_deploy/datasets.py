"""Images, and labels if any, to run a model on: .npy and .npz files, folders of them, or seeded random inputs.

Everything is read in batches, so memory stays flat whatever the size. Files are not trusted: nothing is unpickled, and
the shape, dtype and size that a file declares are checked before anything is allocated.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from bnn_deploy.errors import InputError, message_lines

IMAGE_NAMES = ("x", "images")
LABEL_NAMES = ("y", "labels")

Batch = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Dataset:
    """Images for a model.

    Attributes:
        source: where they come from, for reports.
        samples: how many there are.
        labelled: every image has a label.
        chunks: ``chunks(size)`` yields (images float32 (n, ...), labels int64 (n,) or None) with 1 <= n <= size.
        note: what the user must know about this data, or "".
    """

    source: str
    samples: int
    labelled: bool
    chunks: Callable[[int], Iterator[Batch]]
    note: str = ""

    def batches(self, size: int, samples: int | None = None) -> Iterator[Batch]:
        """The first ``samples`` images (all if None) in batches of ``size``; the last one may be smaller."""
        remaining = self.samples if samples is None else samples
        images: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        held = 0
        for chunk_images, chunk_labels in self.chunks(size):
            start = 0
            while start < len(chunk_images) and remaining > 0:
                take = min(size - held, len(chunk_images) - start, remaining)
                images.append(chunk_images[start : start + take])
                if chunk_labels is not None:
                    labels.append(chunk_labels[start : start + take])
                start, held, remaining = start + take, held + take, remaining - take
                if held == size or remaining == 0:
                    yield np.concatenate(images), np.concatenate(labels) if self.labelled else None
                    images, labels, held = [], [], 0
            if remaining == 0:
                return
        if held:
            yield np.concatenate(images), np.concatenate(labels) if self.labelled else None


def random_inputs(shape: tuple[int, ...], samples: int, seed: int = 0) -> Dataset:
    """Seeded standard normal images of ``shape`` (without batch), the same for any batch size."""

    def chunks(size: int) -> Iterator[Batch]:
        generator = np.random.default_rng(seed)
        for start in range(0, samples, size):
            yield generator.standard_normal((min(size, samples - start), *shape), dtype=np.float32), None

    return Dataset(
        f"normal inputs, seed {seed}",
        samples,
        False,
        chunks,
        "Random inputs keep no margin from the thresholds of the model, so a few signs may flip between two correct "
        "implementations; give --data with real images for a verdict.",
    )


def open_dataset(path: Path, shape: tuple[int, ...], classes: int) -> Dataset:
    """Open a .npz file (``x`` or ``images``, and optionally ``y`` or ``labels``), a .npy file, or a folder of both.

    The files of a folder are taken in the order of their names; other files and subfolders are ignored. All files must
    have labels for the data to be labelled.

    Args:
        path: file or folder.
        shape: shape of one image, without batch.
        classes: labels must be in [0, classes).

    Raises:
        InputError: nothing usable there; wrong names, shape, dtype or size; labels that do not fit.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".npz") and file.is_file())
        if not files:
            raise InputError(
                f"{path}: this folder holds no .npy or .npz file; put float32 images of shape {shape} in it."
            )
    elif path.is_file():
        files = [path]
    else:
        raise InputError(f"{path}: no such file or folder; --data takes a .npy or .npz file or a folder of them.")
    parts = [_open_file(file, shape, classes) for file in files]
    labelled = all(labels is not None for _, labels in parts)

    def chunks(size: int) -> Iterator[Batch]:
        for images, labels in parts:
            start = 0
            for rows in images.rows(size):
                yield rows, labels[start : start + len(rows)] if labels is not None and labelled else None
                start += len(rows)

    return Dataset(str(path), sum(images.shape[0] for images, _ in parts), labelled, chunks)


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "xb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(partial, path)
    except OSError as error:
        # The user knows `path`, not our temporary name.
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another output.") from error
    finally:
        partial.unlink(missing_ok=True)


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

    def rows(self, size: int) -> Iterator[np.ndarray]:
        """The array in pieces of ``size`` along the first dimension.

        Raises:
            InputError: the data ends early or fails its checksum.
        """
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        with _opened(self.path, self.member) as (stream, _):
            _read_header(stream, self.where)
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                data = stream.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise InputError(f"{self.where}: ends in the middle of image {start}; save it again.")
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
