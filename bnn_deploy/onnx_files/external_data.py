"""Tensors that an ONNX file keeps in other files beside it, read into the model under the eyes of a doorkeeper.

The places come from the file, which nobody vouches for: each must be a plain relative path to a regular file that, links
resolved, lies in the model's own folder, and sizes are settled before anything is read.
Format: section "External Data" of the ONNX specification; the checksum is not looked at.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path, PureWindowsPath

from onnx import ModelProto, TensorProto, helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.walk import all_tensors

# Types that share bytes: several elements in one. All others take numpy's item size.
PACKED_BITS = {
    TensorProto.DataType.Value(name): bits
    for name, bits in {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.items()
    if name in TensorProto.DataType.keys()  # noqa: SIM118 (a protobuf enum wrapper, no mapping); older onnx knows fewer
}


def embed_external_data(path: Path, model: ModelProto, limit: int) -> None:
    """Move the data of tensors stored in other files into ``model``, in place.

    Args:
        path: of the model's file; its folder is the only one that is read.
        model: as parsed.
        limit: most bytes of all such tensors together.

    Raises:
        ModelFileError: a place outside the folder, a missing, short or irregular file, sizes that contradict the
            tensor's shape, or more than ``limit`` bytes. Names the tensor.
    """
    tensors = [tensor for tensor in all_tensors(model) if _is_external(tensor)]
    sizes = [_byte_size(path, tensor) for tensor in tensors]
    if sum(sizes) > limit:
        raise ModelFileError(
            f"{path} has {sum(sizes)} bytes of tensors in other files, but a model may have at most {limit} in all."
        )
    for tensor, size in zip(tensors, sizes, strict=True):
        content = _read(path, tensor, size)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = content


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _byte_size(path: Path, tensor: TensorProto) -> int:
    """Bytes that the shape and type take; refused where the file's own figures differ."""
    if min(tensor.dims, default=0) < 0:
        raise ModelFileError(f"{path}: the shape {tuple(tensor.dims)} of tensor {tensor.name!r} is negative.")
    try:
        bits = PACKED_BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{path}: tensor {tensor.name!r} has the unknown type {tensor.data_type}.") from error
    if tensor.data_type == TensorProto.STRING:
        raise ModelFileError(f"{path}: tensor {tensor.name!r} holds strings, which cannot be in another file.")
    return (int(math.prod(tensor.dims)) * bits + 7) // 8


def _read(path: Path, tensor: TensorProto, size: int) -> bytes:
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    offset = _number(path, tensor, "offset", fields.get("offset", "0"))
    length = _number(path, tensor, "length", fields.get("length", str(size)))
    where = f"{path}: tensor {tensor.name!r} is stored in {location!r}"
    if length != size:
        raise ModelFileError(
            f"{where} with {length} bytes, but its shape {tuple(tensor.dims)} and type take {size}; export it again."
        )
    place = _place(path, location, where)
    try:
        # Not following a link that took the file's place since, and not waiting for the writer of a pipe.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(place, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(
                    f"{where}, which is not a file; copy the data file that belongs to the model there."
                )
            if offset + size > status.st_size:
                raise ModelFileError(
                    f"{where} from byte {offset} to {offset + size}, but that file has only {status.st_size} bytes; it "
                    "is truncated or belongs to another model."
                )
            file.seek(offset)
            content = file.read(size)
    except FileNotFoundError as error:
        raise ModelFileError(f"{where}, which does not exist; copy that file too, beside the model.") from error
    except OSError as error:
        raise ModelFileError(f"{where}, which cannot be read: {error.strerror}.") from error
    if len(content) != size:
        raise ModelFileError(f"{where}, which ended after {len(content)} of {size} bytes; copy it again.")
    return content


def _place(path: Path, location: str, where: str) -> Path:
    """The file that ``location`` means, links resolved."""
    # PureWindowsPath splits at both kinds of slash and knows drives, so this holds on every system.
    plain = PureWindowsPath(location)
    if location and "\0" not in location and not plain.drive and not plain.root and ".." not in plain.parts:
        try:
            folder = path.parent.resolve()
            place = (folder / location).resolve()
        except (OSError, RuntimeError) as error:
            raise ModelFileError(f"{where}, whose links lead in a circle; copy the file itself there.") from error
        if place.is_relative_to(folder):
            return place
    raise ModelFileError(
        f"{where}, which is not a plain path inside the model's folder; save the model with all data inside (onnx.save "
        "with save_as_external_data=False) or copy the file itself there."
    )


def _number(path: Path, tensor: TensorProto, key: str, text: str) -> int:
    # int() would also take signs, spaces and underscores, and digits without end.
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ModelFileError(
            f"{path}: tensor {tensor.name!r} has the {key} {text[:40]!r}, which is no number of bytes."
        )
    return int(text)
