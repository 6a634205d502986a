"""Reads trained weights from PyTorch, safetensors, MindSpore and .npz files, trusting nothing in them.

What a file is follows from its first bytes, except for safetensors, which go by their name. A PyTorch file is opened only if
its archive too says that it is one, and then with ``weights_only``, which builds tensors and plain containers and runs no
code from the file.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError, listed, message_lines, printable
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.models.mindspore_checkpoint import ENCRYPTED, FIRST_BYTE, read_mindspore
from bnn_deploy.models.numpy_checkpoint import is_npz, read_npz
from bnn_deploy.models.parameter_names import to_pytorch_names

ZeroWeights = Literal["error", "-1"]

# First bytes of torch.save's format before torch 1.6: a pickle of its magic number (torch/serialization.py).
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ZIP = b"PK\x03\x04"
_NESTED_KEYS = ("state_dict", "model")


@dataclass(frozen=True)
class CheckpointReport:
    """What a user should know about the weights just loaded.

    Attributes:
        ignored: entries of the file that are no weights: optimizer, epoch, text.
        zero_weights: how many binary weights are exactly 0, by the path of the layer; only layers that have any.
        from_mindspore: whether the file has MindSpore's names.
    """

    ignored: tuple[str, ...]
    zero_weights: dict[str, int]
    from_mindspore: bool


def load_checkpoint(model: nn.Module, path: str | Path, zero_weights: ZeroWeights = "error") -> CheckpointReport:
    """Load the weights in ``path`` into ``model``: every name and shape must fit, and every value must be finite.

    The state dict may lie under "state_dict" or "model", its names may begin with "module.", and normalisation layers
    may have MindSpore's names. Only BN's ``num_batches_tracked``, which inference never reads, may be missing.

    Args:
        model: changed only if everything fits.
        path: a file of any supported kind.
        zero_weights: what becomes of binary weights that are exactly 0: -1, as the papers define sign(0), or an error,
            since PyTorch's and MindSpore's own sign(0) is 0 and the authors' code computed with that.

    Raises:
        ModelFileError: the file is not a checkpoint, or does not fit; the one message lists what is wrong.
    """
    path = Path(path)
    contents, beside = read_state_dict(path)
    translation = to_pytorch_names(contents, model)
    found, expected = translation.tensors, model.state_dict()
    missing = [name for name in expected if name not in found and not name.endswith(".num_batches_tracked")]
    unknown = [name for name in found if name not in expected]
    misshapen = [
        f"{name} is {_describe(found[name])}, expected {_describe(expected[name])}"
        for name in expected
        if name in found and _describe(found[name]) != _describe(expected[name])
    ]
    problems = [
        f"{len(names)} {kind}: {listed(names)}"
        for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape or kind", misshapen))
        if names
    ]
    if not problems:
        # In the model's own type: a float64 value may be finite and too large for float32.
        found = {name: tensor.to(expected[name].dtype) for name, tensor in found.items()}
        broken = [name for name, tensor in found.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            problems = [f"{len(broken)} with values that are not finite: {listed(broken)}"]
    if problems:
        raise ModelFileError(
            f"The weights in {path} do not fit {type(model).__name__} ({'; '.join(problems)}); "
            "check the model's name, variant and class count, or rename the tensors."
        )
    zeros = _count_zero_weights(model, found)
    if zeros and zero_weights == "error":
        raise ModelFileError(
            f"The weights in {path} have {sum(zeros.values())} binary weights that are exactly 0 "
            f"({listed([f'{count} in {name}' for name, count in zeros.items()])}), which the papers take as -1 and the "
            "authors' code as 0; pass --zero-weights -1 to take them as -1."
        )
    model.load_state_dict(found, strict=False)
    ignored = tuple(map(printable, (*beside, *translation.training_state)))
    return CheckpointReport(ignored, zeros, translation.from_mindspore)


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
    if path.suffix == ".safetensors":
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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"The safetensors file {path} cannot be read ({error}); write it again.") from error


def _count_zero_weights(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, int]:
    """Zeros among the real weights of each binary layer: all its parameters but none of its children's."""
    counts = {}
    for path, module in model.named_modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
            counts[path] = sum(int((state[name] == 0).sum()) for name in names)
    return {path: count for path, count in counts.items() if count}


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _describe(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else "integer"
    return f"{kind} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
