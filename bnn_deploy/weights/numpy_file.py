"""Reads weights from ``.npz`` files: a zip archive of one ``.npy`` file per tensor, with or without compression.

What the archive's directory promises is checked before anything is unpacked, each array's header before its data are read,
and nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnn_deploy.errors import ModelFileError, message_lines

# Weights that are all +-a shrink about 16 times, real ones hardly at all; deflate could blow a file up 1032 times.
LARGEST_EXPANSION = 64
_LARGEST_TOTAL = 2**31
_SUFFIX = ".npy"


def is_npz(entries: list[zipfile.ZipInfo]) -> bool:
    """Whether a zip archive with these entries holds ``.npy`` files and nothing else."""
    return bool(entries) and all(entry.filename.endswith(_SUFFIX) for entry in entries)


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of a ``.npz`` file by name; bool and every integer and float type up to 64 bits, either byte order.

    Raises:
        ModelFileError: the file is damaged, encrypted or a zip bomb, or holds something else than numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(entries, path)
            return {entry.filename.removesuffix(_SUFFIX): _read_array(archive, entry, path) for entry in entries}
    except ModelFileError:
        raise
    except Exception as error:
        # zipfile, zlib and numpy's header parser raise a dozen kinds of error for damaged files.
        raise ModelFileError(
            f"The file {path} is a damaged .npz file ({message_lines(error)[0]}); save it again with numpy.savez."
        ) from error


def _check_directory(entries: list[zipfile.ZipInfo], path: Path) -> None:
    if len({entry.filename for entry in entries}) != len(entries):
        raise ModelFileError(f"The file {path} holds two arrays of the same name; save it again with numpy.savez.")
    promised, stored = sum(entry.file_size for entry in entries), path.stat().st_size
    if promised > min(_LARGEST_TOTAL, LARGEST_EXPANSION * stored):
        raise ModelFileError(
            f"The file {path} has {stored} bytes and says that it unpacks to {promised}, more than weights can; "
            "save it again with numpy.savez."
        )


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Tensor:
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            # numpy.savez writes others only for structured types.
            raise ValueError(f"{entry.filename!r} has format version {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise ModelFileError(
                f"The array {entry.filename!r} in {path} holds {dtype} instead of numbers; "
                "save the weights alone, as float32, with numpy.savez."
            )
        expected, found = math.prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if min(shape, default=1) < 1 or expected != found:
            raise ValueError(f"{entry.filename!r} has {found} bytes for the shape {shape} of {dtype}")
        # To the end of the entry, where zipfile compares its checksum.
        content = stream.read(expected)
    if len(content) != expected:
        raise ValueError(f"{entry.filename!r} is cut off")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")
    return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C", copy=True))
