"""One shape for every layer that may be binary, whatever operator it was written with.

Before::

    Conv(x, w, b), Gemm(a, b, c), MatMul(x, w), MatMul(w, x)
After::

    LayerForm: the activation, weights (O, taps, depth) with the output first, how to turn input and output, a bias
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, layer_name, producer_of, static_shape


@dataclass(frozen=True)
class Geometry:
    """A convolution as ``BinaryConv`` says it; ``flat`` is a one-dimensional one, seen as an image of one row."""

    kernel_shape: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    group: int
    in_channels: int
    flat: bool = False


@dataclass
class LayerForm:
    """A layer, taken apart.

    Attributes:
        node: of the graph.
        activation: the operand that is not weights; None where no operand is a constant.
        weights: (O, taps, depth) in the width of the file; None where they are computed.
        reasons: why it cannot be a binary layer, one sentence for each condition that fails; weights and activations
            are judged later.
        geometry: of a convolution; None for a matrix product.
        rank: dimensions of the activation of a matrix product, 0 if unknown.
        transpose_input: swap the last two axes of the activation first.
        transpose_output: swap the last two axes of the result.
        factor: of the whole product, besides the weights.
        bias: float64 (O,), added to the result before ``transpose_output``.
        addend: a value added to the result after it, times ``addend_factor``.
    """

    node: ir.Node
    activation: ir.Value | None = None
    weights: np.ndarray | None = None
    reasons: list[str] = field(default_factory=list)
    geometry: Geometry | None = None
    rank: int = 0
    transpose_input: bool = False
    transpose_output: bool = False
    factor: float = 1.0
    bias: np.ndarray | None = None
    addend: ir.Value | None = None
    addend_factor: float = 1.0


def computed_by(value: ir.Value | None) -> str:
    """Where a value that is no constant comes from, for a reason."""
    node = producer_of(value)
    if node is None:
        return "an input of the network"
    return f"{node.op_type} '{layer_name(node)}'"


def check_extent(form: LayerForm, axis: int, extent: int) -> None:
    """Note a reason if the activation's ``axis`` is known to be of another size than the weights need."""
    shape = static_shape(form.activation)
    if shape is None or not -len(shape) <= axis < len(shape):
        return
    if shape[axis] not in (None, extent):
        form.reasons.append(f"its weights take {extent} values where its input has {shape[axis]}")


def constant_weights(form: LayerForm, value: ir.Value | None) -> np.ndarray | None:
    """The constant array behind ``value``; notes a reason and returns None if it is computed."""
    array = constant_of(value)
    if array is None:
        form.reasons.append(f"its weights are computed at run time from {computed_by(value)}")
    return array
