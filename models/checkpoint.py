"""Reads trained weights from .pt, .pth and .safetensors files, trusting nothing in them.

A PyTorch file is opened only if its first bytes and its archive say that it is one, and then with ``weights_only``,
which builds tensors and plain containers and runs no code from the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError

# First bytes of torch.save's format before torch 1.6: a pickle of its magic number (torch/serialization.py).
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
_NESTED_KEYS = ("state_dict", "model")
_LISTED_NAMES = 8


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load the weights in ``path`` into ``model``: every name and shape must fit, and every value must be finite.

    The state dict may lie under "state_dict" or "model", and its names may begin with "module.". Only BN's
    ``num_batches_tracked``, which inference never reads, may be missing.

    Raises:
        ModelFileError: the file is not a checkpoint, or does not fit; the one message lists what is wrong.
    """
    path = Path(path)
    found = read_state_dict(path)
    expected = model.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith(".num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    misshapen = [
        f"{name} is {_describe(found[name])}, expected {_describe(expected[name])}"
        for name in expected
        if name in found and _describe(found[name]) != _describe(expected[name])
    ]
    problems = [
        f"{len(names)} {kind}: {_list(names)}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape or kind", misshapen))
        if names
    ]
    if not problems:
        broken = [name for name, tensor in found.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            problems = [f"{len(broken)} with values that are not finite: {_list(broken)}"]
    if problems:
        raise ModelFileError(
            f"The weights in {path} do not fit {type(model).__name__} ({'; '.join(problems)}); "
            "check the model's name, variant and class count, or rename the tensors."
        )
    model.load_state_dict(found, strict=False)


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, with "module." removed.

    Raises:
        ModelFileError: the file is missing, is not a checkpoint, or holds more than named tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_TORCH))
    except OSError as error:
        raise ModelFileError(f"The weights in {path} cannot be read ({error.strerror}).") from error
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif start == _LEGACY_TORCH or (start.startswith(_ZIP) and _is_torch_archive(path)):
        content = _read_torch(path)
    else:
        raise ModelFileError(
            f"The file {path} is neither a PyTorch nor a safetensors checkpoint; give a .safetensors file or a state "
            "dict that torch.save wrote."
        )
    for key in _NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelFileError(f"The file {path} holds no state dict; save model.state_dict() instead.")
    strangers = [str(name) for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if strangers:
        raise ModelFileError(
            f"The state dict in {path} holds {len(strangers)} entries that are not named tensors: "
            f"{_list(strangers)}; save model.state_dict() alone, or under 'state_dict'."
        )
    state = {name.removeprefix("module."): value for name, value in content.items()}
    if len(state) != len(content):
        raise ModelFileError(f"The state dict in {path} has names both with and without 'module.'; keep one of each.")
    return state


def _is_torch_archive(path: Path) -> bool:
    """Whether the zip file has torch.save's layout, with every entry stored and none compressed, hence no zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return stored and any(entry.filename.endswith("/data.pkl") for entry in entries)


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(
            f"The PyTorch file {path} is damaged or holds more than tensors ({reason[0]}); "
            "save model.state_dict() alone."
        ) from error


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"The safetensors file {path} cannot be read ({error}); write it again.") from error


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _describe(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else "integer"
    return f"{kind} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED_NAMES])
    return shown if len(names) <= _LISTED_NAMES else f"{shown} and {len(names) - _LISTED_NAMES} more"
