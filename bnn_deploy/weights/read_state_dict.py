"""Reads named tensors from PyTorch, safetensors, MindSpore and .npz files, trusting nothing in them.

What a file is follows from its first bytes, except for safetensors, which go by their name. A PyTorch file is opened only if
its archive too says that it is one, and then with ``weights_only``, which builds tensors and plain containers and runs no
code from the file.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bnn_deploy.errors import ModelFileError, listed, message_lines, printable
from bnn_deploy.weights.mindspore_file import ENCRYPTED, FIRST_BYTE, read_mindspore
from bnn_deploy.weights.numpy_file import is_npz, read_npz
from bnn_deploy.weights.safetensors_file import SUFFIX, UnfitTensorsError, read_any_tensors

# First bytes of torch.save's format before torch 1.6: a pickle of its magic number (torch/serialization.py).
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
_NESTED_KEYS = ("state_dict", "model")


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a checkpoint by name, on the CPU, with "module." removed, and the names of what lies beside them.

    Raises:
        ModelFileError: the file is missing, is not a checkpoint, or holds more than named tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_TORCH))
        content, beside = _read(path, start)
    except OSError as error:
        raise ModelFileError(f"The weights in {path} cannot be read ({error.strerror}).") from error
    for key in _NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside = tuple(str(other) for other in content if other != key)
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelFileError(f"The file {path} holds no state dict; save model.state_dict() instead.")
    strangers = [str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if strangers:
        raise ModelFileError(
            f"The state dict in {path} holds {len(strangers)} entries that are not named tensors: "
            f"{listed(strangers)}; save model.state_dict() alone, or under 'state_dict'."
        )
    state = {name.removeprefix("module."): value for name, value in content.items()}
    if len(state) != len(content):
        raise ModelFileError(f"The state dict in {path} has names both with and without 'module.'; keep one of each.")
    return state, beside


def _read(path: Path, start: bytes) -> tuple[object, tuple[str, ...]]:
    """Whatever the file holds, and the names of entries that the reader left out."""
    if path.suffix == SUFFIX:
        return _read_safetensors(path), ()
    entries = _zip_entries(path) if start.startswith(_ZIP) else []
    if start == _LEGACY_TORCH or _is_torch_archive(entries):
        return _read_torch(path), ()
    if is_npz(entries):
        return read_npz(path), ()
    if start.startswith((FIRST_BYTE, *ENCRYPTED)):
        return read_mindspore(path)
    raise ModelFileError(
        f"The file {path} is not a checkpoint of PyTorch, safetensors, MindSpore or numpy; give a state dict that "
        "torch.save wrote, or a .safetensors, .ckpt or .npz file."
    )


def _zip_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The directory of a zip archive; empty if there is none that can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception:
        # BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError and more, depending on where the damage is.
        return []


def _is_torch_archive(entries: list[zipfile.ZipInfo]) -> bool:
    """Whether they are torch.save's layout, with every entry stored and none compressed, hence no zip bomb."""
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return stored and any(entry.filename.endswith("/data.pkl") for entry in entries)


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        stranger = re.search(r"GLOBAL (\S+)", str(error))
        if stranger:
            raise ModelFileError(
                f"The PyTorch file {path} holds {printable(stranger[1])} besides tensors and is not opened, since that "
                "could run code from it; if you trust its author, open it with torch.load(…, weights_only=False) and "
                "torch.save its state dict alone."
            ) from error
        raise ModelFileError(
            f"The PyTorch file {path} is damaged ({message_lines(error)[0]}); get it again, or save it again."
        ) from error


def _read_safetensors(path: Path) -> object:
    try:
        return read_any_tensors(path)
    except UnfitTensorsError as error:
        raise ModelFileError(f"The safetensors file {path} cannot be read ({error}); write it again.") from error


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
