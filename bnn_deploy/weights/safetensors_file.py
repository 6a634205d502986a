"""Safetensors files whose bytes follow from their content alone, and a reader that trusts nothing in them.

safetensors' own writer keeps the metadata in a hash table, so that the same content gives another header each time
(seen with 0.8.0). A run that is repeated must give the same file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from bnn_deploy.errors import BnnDeployError, printable
from bnn_deploy.files import write_whole

SUFFIX = ".safetensors"

Description = tuple[str, tuple[int, ...]]  # safetensors' name of the kind of number, and the shape

_KINDS = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}
# Some 200 bytes for each tensor, and BiMLP-M's checkpoint has 5,000.
_LARGEST_HEADER = 2**24
_LENGTH = struct.Struct("<Q")


class UnfitTensorsError(ValueError):
    """The file does not hold what was expected."""


def describe(tensor: Tensor) -> Description:
    """Kind and shape; raises KeyError for kinds that are not written."""
    return _KINDS[tensor.dtype], tuple(tensor.shape)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Make the file: whole and on the disk, or not at all. float32, float64, int64 and uint8 tensors, on any device.

    Raises:
        InputError: it cannot be written.
    """
    # As safetensors itself orders them: the widest numbers first, so that each is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in names:
        kind, shape = describe(tensors[name])
        end = offset + tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH.size)

    def write(file: IO[bytes]) -> None:
        file.write(_LENGTH.pack(len(text)) + text)
        for name in names:
            file.write(tensors[name].detach().cpu().contiguous().numpy().tobytes())

    write_whole(path, write, durable=True)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        UnfitTensorsError: it is none, or is damaged.
        OSError: it cannot be opened.
    """
    with _opened(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        return metadata


def read_any_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, whatever they are; raises as ``read_metadata``."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def read_tensors(path: Path, expected: Callable[[set[str]], Mapping[str, Description]]) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU. None is loaded before all their names, kinds and shapes are as expected.

    Args:
        path: the file.
        expected: for the names found, what the file must hold.

    Raises:
        UnfitTensorsError: the file is damaged, holds anything else, or a number that is not finite.
        OSError: it cannot be opened.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
        _require_same(found, expected(set(found)))
        tensors = {name: file.get_tensor(name) for name in found}
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UnfitTensorsError(f"its {printable(name)} holds numbers that are not finite")
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity; whole numbers never do."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def require_finite(tensors: Mapping[str, Tensor], error: Callable[[str], BnnDeployError]) -> None:
    """Raise what ``error`` makes of the first name whose tensor is not finite."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise error(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """safetensors' reader of the file, which has no types."""
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except UnfitTensorsError:
        raise
    except (SafetensorError, ValueError) as error:
        raise UnfitTensorsError(f"it is damaged: {error}") from error


def _check_header(path: Path) -> None:
    """safetensors itself would read a header of 100 MB."""
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        raise UnfitTensorsError(f"it has {len(start)} bytes")
    (length,) = _LENGTH.unpack(start)
    if not 2 <= length <= min(_LARGEST_HEADER, path.stat().st_size - _LENGTH.size):
        raise UnfitTensorsError(f"it is no safetensors file, or cut off: its header would have {length} bytes")


def _require_same(found: Mapping[str, Description], expected: Mapping[str, Description]) -> None:
    for names, meaning in (
        (sorted(set(expected) - set(found)), "lacks"),
        (sorted(set(found) - set(expected)), "has an unknown"),
    ):
        if names:
            raise UnfitTensorsError(f"it {meaning} {printable(names[0])}")
    for name, description in expected.items():
        if found[name] != description:
            raise UnfitTensorsError(f"its {printable(name)} is {_text(found[name])}, expected {_text(description)}")


def _text(description: Description) -> str:
    return f"{description[0]} {'x'.join(map(str, description[1])) or 'scalar'}"
