"""Loads trained weights of any kind of file into a model, if every one of them fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError, listed, printable
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear
from bnn_deploy.weights.mindspore_names import to_pytorch_names
from bnn_deploy.weights.read_state_dict import read_state_dict

ZeroWeights = Literal["error", "-1"]


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


def _count_zero_weights(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, int]:
    """Zeros among the real weights of each binary layer: all its parameters but none of its children's."""
    counts = {}
    for path, module in model.named_modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters(recurse=False)]
            counts[path] = sum(int((state[name] == 0).sum()) for name in names)
    return {path: count for path, count in counts.items() if count}


def _describe(tensor: Tensor) -> str:
    kind = "float" if tensor.is_floating_point() else "integer"
    return f"{kind} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
