"""Stand-ins for the binary layers of ``bnn_deploy.models.layers`` that export as nodes of the ``bnn_deploy`` domain.

Each keeps its place in the module tree, so a node is named after the PyTorch module it comes from. Their forward only
works while ``torch.onnx.export`` traces; they hold frozen, packed weights and are never trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bnn_deploy.bits import pack_bits
from bnn_deploy.errors import InputError
from bnn_deploy.models.layers import BinaryActivation, BinaryConv2d, BinaryLinear, TernaryActivation
from bnn_deploy.onnx_files.node_naming import LAYER_KEY
from bnn_deploy.ops.registry import DOMAIN, OPSET


class _ExportedLayer(nn.Module):
    """A leaf that emits one node of the ``bnn_deploy`` domain, tagged with its module path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def emit(self, operator: str, inputs: list[Tensor], shape: list[Any], attributes: dict[str, Any]) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{operator}",
            inputs,
            attributes,
            dtype=torch.float32,
            shape=shape,
            version=OPSET,
            metadata_props={LAYER_KEY: self.path},
        )


class ExportedSign(_ExportedLayer):
    """``Sign`` with threshold 0; a learned threshold stays the ordinary Add before it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.emit("Sign", [x, torch.zeros(())], list(x.shape), {"zero": -1})


class ExportedTernary(_ExportedLayer):
    """``Ternary``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.emit("Ternary", [x], list(x.shape), {})


class ExportedConv(_ExportedLayer):
    """``BinaryConv`` and a Mul by the channel scale, or ``TapScaledBinaryConv``."""

    packed: Tensor
    scale: Tensor | None

    def __init__(self, path: str, layer: BinaryConv2d) -> None:
        super().__init__(path)
        self.kernel_size, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding
        self.attributes = {
            "kernel_shape": list(self.kernel_size),
            "strides": list(self.stride),
            "pads": [*self.padding, *self.padding],
            "group": layer.groups,
            "in_channels": layer.in_channels,
        }
        self.out_channels = layer.out_channels
        self.scaling = layer.scaling
        # Packing order of a row is (kh, kw, c).
        rows = layer.binary_weight().permute(0, 2, 3, 1).flatten(1)
        self.register_buffer("packed", _packed(rows))
        scale = layer.weight_scale()
        if scale is not None:
            scale = scale.clone() if layer.scaling == "tap" else scale.reshape(1, -1, 1, 1).clone()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        geometry = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        sides = [(side + 2 * padding - kernel) // stride + 1 for side, kernel, stride, padding in geometry]
        shape = [x.shape[0], self.out_channels, *sides]
        if self.scaling == "tap" and self.scale is not None:
            return self.emit("TapScaledBinaryConv", [x, self.packed, self.scale], shape, self.attributes)
        y = self.emit("BinaryConv", [x, self.packed], shape, self.attributes)
        return y if self.scale is None else y * self.scale


class ExportedLinear(_ExportedLayer):
    """``BinaryLinear`` and a Mul by the scale of each output."""

    packed: Tensor
    scale: Tensor

    def __init__(self, path: str, layer: BinaryLinear) -> None:
        super().__init__(path)
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self.register_buffer("packed", _packed(layer.binary_weight()))
        self.register_buffer("scale", layer.weight_scale().clone())

    def forward(self, x: Tensor) -> Tensor:
        shape = [*x.shape[:-1], self.out_features]
        y = self.emit("BinaryLinear", [x, self.packed], shape, {"in_features": self.in_features})
        return y * self.scale


@torch.no_grad()
def swap_binary_layers(module: nn.Module) -> nn.Module:
    """Replace every binary layer inside ``module`` (changed in place) by its stand-in; returns the new root.

    Raises:
        InputError: a binary layer is set to real values, which no node of the ``bnn_deploy`` domain computes.
    """
    replaced: dict[nn.Module, nn.Module] = {}
    for path, layer in list(module.named_modules()):
        stand_in = _stand_in(path, layer)
        if stand_in is not None:
            replaced[layer] = stand_in
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if child in replaced:
                setattr(parent, name, replaced[child])
    return replaced.get(module, module)


def _stand_in(path: str, layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, BinaryActivation | TernaryActivation | BinaryConv2d | BinaryLinear) and not layer.binary:
        raise InputError(
            f"The layer {path or type(layer).__name__} is set to real values, as in an early step of training, and cannot "
            "be exported: a binary layer is expected; train the remaining steps, or call set_precision with binary for both."
        )
    if isinstance(layer, BinaryActivation):
        return ExportedSign(path)
    if isinstance(layer, TernaryActivation):
        return ExportedTernary(path)
    if isinstance(layer, BinaryConv2d):
        return ExportedConv(path, layer)
    if isinstance(layer, BinaryLinear):
        return ExportedLinear(path, layer)
    return None


def _packed(rows: Tensor) -> Tensor:
    return torch.from_numpy(pack_bits(rows.detach().cpu().numpy()))
