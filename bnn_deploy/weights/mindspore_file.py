"""Reads MindSpore's checkpoints (``.ckpt``), which are protobuf messages, without MindSpore and without unpickling:

    message Checkpoint  { repeated Value value = 1; }
    message Value       { string tag = 1; TensorProto tensor = 2; }
    message TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3; }

(mindspore/ccsrc/utils/checkpoint.proto; how they are written: ``save_checkpoint`` in mindspore/train/serialization.py.)
A large tensor is cut into pieces, each a Value with the same tag and the dims of the whole; a scalar has dims [0] or none;
``crc_check=True`` appends "crc_num" and a CRC-32 of all before it in 10 bytes, big-endian.

Not read: encrypted files, and parameters that are hash tables. Three message types are little enough to read by hand, so
that every length is checked before anything of its size is made and nothing unknown is skipped in silence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from bnn_deploy.errors import ModelFileError

# Field 1 of a message, as a string of bytes: how the first Value begins.
FIRST_BYTE = b"\x0a"
# The first four bytes of AES-GCM, AES-CBC and SM4-CBC files (mindspore/core/utils/crypto.h), little-endian.
ENCRYPTED = (b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f", b"\xda\x5e\x3a\x7f")

_TEXT = "str"
_DTYPES = {
    "Float16": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float32": torch.float32,
    "Float64": torch.float64,
    "Int8": torch.int8,
    "Int16": torch.int16,
    "Int32": torch.int32,
    "Int64": torch.int64,
    "UInt8": torch.uint8,
    "UInt16": torch.uint16,
    "UInt32": torch.uint32,
    "UInt64": torch.uint64,
    # Its bytes are those of numpy's bool, but a file may hold others than 0 and 1.
    "Bool": torch.uint8,
}
_CRC_MARK = b"crc_num"
_CRC_BYTES = 10
# What a protobuf message may measure; MindSpore itself cannot load a larger file.
_LARGEST_FILE = 2**31 - 1
# BiMLP-M with two moments for each parameter has some 6000. Python objects for a file full of empty ones would take many
# times its size.
_MOST_VALUES = 100_000
_MOST_DIMENSIONS = 8


class _Damaged(ValueError):
    """Says what is wrong with the file."""


@dataclass(frozen=True)
class _Piece:
    """One Value: a tensor or a piece of one."""

    name: str
    shape: tuple[int, ...]
    kind: str
    content: memoryview


def read_mindspore(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a MindSpore checkpoint by name, in the file's order, and the names of its entries that are text.

    Raises:
        ModelFileError: the file is encrypted, damaged, no MindSpore checkpoint, or holds something else than tensors.
    """
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ModelFileError(
            f"The file {path} has {size} bytes, but a MindSpore checkpoint has at most {_LARGEST_FILE}."
        )
    content = memoryview(path.read_bytes())
    if bytes(content[:4]) in ENCRYPTED:
        raise ModelFileError(
            f"The MindSpore checkpoint {path} is encrypted; load it in MindSpore with its key and save it without enc_key."
        )
    tensors: dict[str, Tensor] = {}
    texts: list[str] = []
    try:
        for name, group in groupby(_pieces(_without_crc(content)), key=lambda piece: piece.name):
            pieces = list(group)
            if name in tensors or name in texts:
                raise _Damaged(f"{_short(name)} occurs twice")
            if pieces[0].kind == _TEXT:
                texts.append(name)
            else:
                tensors[name] = _tensor(pieces)
    except _Damaged as error:
        raise ModelFileError(
            f"The file {path} is no MindSpore checkpoint that can be read, or is damaged ({error}); "
            "get it again, or save the weights as .npz."
        ) from error
    return tensors, tuple(texts)


def _without_crc(content: memoryview) -> memoryview:
    body, tail = content[: -len(_CRC_MARK) - _CRC_BYTES], bytes(content[-len(_CRC_MARK) - _CRC_BYTES :])
    if not tail.startswith(_CRC_MARK):
        return content
    if zlib.crc32(body) != int.from_bytes(tail[len(_CRC_MARK) :], "big"):
        raise _Damaged("its checksum does not fit")
    return body


def _pieces(content: memoryview) -> Iterator[_Piece]:
    for count, (number, value) in enumerate(_fields(content)):
        if number != 1 or isinstance(value, int):
            raise _Damaged(f"field {number} where a parameter should begin")
        if count == _MOST_VALUES:
            raise _Damaged(f"more than {_MOST_VALUES} parameters")
        yield _piece(value)


def _piece(value: memoryview) -> _Piece:
    fields = _each_once(value, {1: "tag", 2: "tensor"}, "a parameter")
    name = _text(fields["tag"])
    shape: list[int] = []
    rest: dict[int, memoryview] = {}
    for number, item in _fields(fields["tensor"]):
        if number == 1:
            # Integers one by one, as proto2 writes them, or packed into one string of bytes.
            shape.extend([item] if isinstance(item, int) else _packed(item))
            if len(shape) > _MOST_DIMENSIONS or any(side >= 2**63 for side in shape):
                raise _Damaged(f"{_short(name)} has impossible dimensions")
        elif number in (2, 3) and number not in rest and not isinstance(item, int):
            rest[number] = item
        else:
            raise _Damaged(f"{_short(name)} has an unknown or repeated field {number}")
    if len(rest) != 2:
        raise _Damaged(f"{_short(name)} lacks its type or its values")
    return _Piece(name, tuple(shape), _text(rest[2]), rest[3])


def _each_once(message: memoryview, names: dict[int, str], where: str) -> dict[str, memoryview]:
    """The fields of a message that has each of ``names`` exactly once, and no other."""
    found: dict[str, memoryview] = {}
    for number, value in _fields(message):
        if number not in names or names[number] in found or isinstance(value, int):
            raise _Damaged(f"{where} has field {number}, which is no tensor")
        found[names[number]] = value
    if len(found) != len(names):
        raise _Damaged(f"{where} has no name or no tensor")
    return found


def _tensor(pieces: list[_Piece]) -> Tensor:
    first = pieces[0]
    if any((piece.shape, piece.kind) != (first.shape, first.kind) for piece in pieces):
        raise _Damaged(f"the pieces of {_short(first.name)} differ in shape or type")
    if first.kind not in _DTYPES:
        raise _Damaged(f"{_short(first.name)} has the unknown type {_short(first.kind)}")
    dtype = _DTYPES[first.kind]
    shape = () if first.shape == (0,) else first.shape
    expected, found = math.prod(shape) * dtype.itemsize, sum(len(piece.content) for piece in pieces)
    if expected != found:
        raise _Damaged(f"{_short(first.name)} has {found} bytes, but its shape needs {expected}")
    if not expected:
        raise _Damaged(f"{_short(first.name)} holds no values")
    return torch.frombuffer(bytearray().join(piece.content for piece in pieces), dtype=dtype).reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of each field of a protobuf message; other kinds of field do not occur here."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
        elif kind == 2:
            length, position = _varint(message, position)
            if length > len(message) - position:
                raise _Damaged(f"a field of {length} bytes where {len(message) - position} are left")
            yield number, message[position : position + length]
            position += length
        else:
            raise _Damaged(f"field {number} has the unexpected wire type {kind}")


def _packed(message: memoryview) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(message):
        if len(values) > _MOST_DIMENSIONS:
            raise _Damaged("a parameter has impossible dimensions")
        value, position = _varint(message, position)
        values.append(value)
    return values


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and the position after it."""
    value = 0
    for index, byte in enumerate(message[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & (2**64 - 1), position + index + 1
    raise _Damaged("a number without end")


def _text(content: memoryview) -> str:
    try:
        return bytes(content).decode()
    except UnicodeDecodeError as error:
        raise _Damaged("a name that is not text") from error


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "…")
