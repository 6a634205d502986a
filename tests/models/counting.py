"""Operation and parameter counts in the papers' convention, from PyTorch's side: a check of ``onnx_files.statistics``.

The convention (BiMLP, BCDNet, ReActNet, after Bi-Real Net): one multiply-accumulate of a convolution or fully connected
layer is one operation, padded positions included. BOPs are those of the binary layers, FLOPs those of the real-valued
ones, OPs = BOPs / 64 + FLOPs. Normalisation, activations, shortcuts, pooling and softmax are not counted, nor are
biases, except that BiMLP counts one FLOP for each output of a real-valued layer with a bias. BCDNet's two heads count
as one, because their mean is one fully connected layer.

Binary parameters are the weights of the binary layers; real parameters are all the others, without BN's running
statistics and with both of BCDNet's heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear

# BCDNet's second head, which inference merges into the first.
MERGED_HEAD = "fc_dist"


@dataclass(frozen=True)
class LayerCount:
    """One binary or real-valued convolution or fully connected layer, for one image; a merged head has no FLOPs."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    bops: int
    flops: int
    binary_params: int
    real_params: int


@dataclass(frozen=True)
class OperationCounts:
    """Counts for one image; ``layers`` has a row for each layer that is counted, in order of execution."""

    bops: int
    flops: int
    binary_params: int
    real_params: int
    layers: tuple[LayerCount, ...]

    @property
    def ops(self) -> float:
        """BOPs / 64 + FLOPs."""
        return self.bops / 64 + self.flops


def count_operations(model: nn.Module, shape: tuple[int, int, int]) -> OperationCounts:
    """Count the operations of one image of ``shape`` (channels, height, width), by running the model without data.

    Raises:
        InputError: the model does not take such images.
    """
    rows: list[LayerCount] = []
    counts_biases: bool = getattr(model, "counts_biases", False)
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, BinaryConv2d | BinaryLinear | nn.Conv2d | nn.Linear):

            def count(layer: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
                rows.append(_count_layer(name, layer, output, counts_biases))

            handles.append(module.register_forward_hook(count))
    was_training = model.training
    try:
        model.eval()
        # Tensors without data: shapes are worked out, nothing is computed.
        state = {name: value.to("meta") for name, value in model.state_dict().items()}
        with torch.no_grad():
            functional_call(model, state, (torch.empty(1, *shape, device="meta"),))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    binary_params = sum(row.binary_params for row in rows)
    return OperationCounts(
        bops=sum(row.bops for row in rows),
        flops=sum(row.flops for row in rows),
        binary_params=binary_params,
        real_params=sum(parameter.numel() for parameter in model.parameters()) - binary_params,
        layers=tuple(rows),
    )


def _count_layer(name: str, layer: nn.Module, output: Tensor, counts_biases: bool) -> LayerCount:
    binary = isinstance(layer, BinaryConv2d | BinaryLinear)
    weight: Tensor = layer.real_weight() if isinstance(layer, BinaryConv2d) else layer.weight  # type: ignore[assignment]
    # Each weight of an output channel is used once for each of that channel's outputs.
    operations = 0 if name == MERGED_HEAD else weight.numel() * (output.numel() // weight.shape[0])
    counted_biases = output.numel() if counts_biases and getattr(layer, "bias", None) is not None else 0
    return LayerCount(
        name=name,
        kind=type(layer).__name__,
        output_shape=tuple(output.shape[1:]),
        bops=operations if binary else 0,
        flops=0 if binary else operations + counted_biases,
        binary_params=weight.numel() if binary else 0,
        real_params=0 if binary else sum(parameter.numel() for parameter in layer.parameters()),
    )
