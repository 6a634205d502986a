"""Writes MindSpore checkpoints byte by byte, from the schema and ``save_checkpoint``, knowing nothing of our reader.

And the small models to put into them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bnn_deploy.models.random_weights import randomise
from bnn_deploy.models.registry import build_model

FLOATS = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7
LAST_PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# str(dtype) of MindSpore's types.
TYPES = {torch.float32: "Float32", torch.float16: "Float16", torch.float64: "Float64", torch.int32: "Int32"}


def varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(128 + value % 128)
        value //= 128
    return bytes([*digits, value])


def field(number: int, content: bytes) -> bytes:
    return varint(8 * number + 2) + varint(len(content)) + content


def tensor_message(dims: Iterable[int], kind: str, content: bytes) -> bytes:
    return b"".join(b"\x08" + varint(side) for side in dims) + field(2, kind.encode()) + field(3, content)


def value(name: str, dims: Iterable[int], kind: str, content: bytes) -> bytes:
    """One parameter, as ``save_checkpoint`` writes one after another into the file."""
    return field(1, field(1, name.encode()) + field(2, tensor_message(dims, kind, content)))


def tensor_value(name: str, tensor: Tensor, piece_bytes: int = 2**29) -> bytes:
    """The parameter in pieces of at most ``piece_bytes``; a scalar has dims [0]."""
    content = tensor.numpy().tobytes()
    pieces = [content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes)]
    return b"".join(value(name, tensor.shape or (0,), TYPES[tensor.dtype], piece) for piece in pieces)


def text_value(name: str, text: str) -> bytes:
    return value(name, (0,), "str", np.array(text).tobytes())


def with_crc(content: bytes) -> bytes:
    return content + b"crc_num" + zlib.crc32(content).to_bytes(10, "big")


def mindspore_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A BiMLP state dict under the names of the released code, where every normalisation is called norm… or …_bn."""
    renamed = {}
    for name, tensor in state.items():
        path, _, last = name.rpartition(".")
        module = path.rpartition(".")[2]
        if last != "num_batches_tracked":
            is_norm = module.startswith("norm") or module.endswith("_bn")
            renamed[f"{path}.{LAST_PARTS[last]}" if is_norm else name] = tensor
    return renamed


def checkpoint(state: Mapping[str, Tensor], piece_bytes: int = 2**29) -> bytes:
    return b"".join(tensor_value(name, tensor, piece_bytes) for name, tensor in state.items())


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def tiny(variant: str = "released", seed: int = 3) -> nn.Module:
    model = build_model("bimlp_tiny", variant=variant)
    randomise(model, seed)
    return model


def same(left: nn.Module, right: nn.Module) -> bool:
    other = right.state_dict()
    return all(
        torch.equal(tensor, other[name]) for name, tensor in left.state_dict().items() if "num_batches" not in name
    )
