"""Layers that multiply signs with ±a become binary layers on packed weights; of every other one the report says why not.

Before::

    y = Conv(Mul(Sign(x), 0.5), w, b)                       w: ±a for each output channel
After::

    y = Add(Mul(BinaryConv(Sign(x), packed w), a/2), b)

Every Conv, ConvTranspose, Gemm and MatMul of standard ONNX is examined, then all that qualify are rewritten; a layer with a
real-valued operand stays as it is.
Where: after the activations are ``Sign`` and ``Ternary`` nodes and nothing but data movement and arithmetic with single
numbers stands between them and the layers (``hoist_pooling``, ``fold_padding``).

Not handled: ConvTranspose, layers inside the subgraphs of If and Loop, other data types than float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.standard_operators import LAYERS
from bnn_deploy.passes.onnx.activations.describe_values import describe_values
from bnn_deploy.passes.onnx.graph import is_standard, layer_name
from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport, LayerReport
from bnn_deploy.passes.onnx.layers.binary_values import BinaryFacts, BinaryValues
from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights, RealWeights, judge_weights
from bnn_deploy.passes.onnx.layers.layer_form import LayerForm, constant_weights
from bnn_deploy.passes.onnx.layers.read_convolution import read_convolution
from bnn_deploy.passes.onnx.layers.read_product import read_product
from bnn_deploy.passes.onnx.layers.unscale import Unscaler
from bnn_deploy.passes.onnx.layers.write_layer import scales_fit, write_layer

# float32 holds every integer up to here, so that a sum of so many ±1 is exact.
_LONGEST_SUM = 2**24 - 1
_MOST_NAMED = 3


@dataclass
class _Layer:
    form: LayerForm
    values: BinaryValues | None
    weights: BinaryWeights | RealWeights | None
    activation_words: str

    @property
    def binary_weights(self) -> BinaryWeights | None:
        return self.weights if isinstance(self.weights, BinaryWeights) else None

    @property
    def has_zeros(self) -> bool:
        return self.binary_weights is not None and self.binary_weights.zeros > 0 and not self.form.reasons


def recognise_layers(model: ir.Model, options: ImportOptions, report: ImportReport) -> None:
    """Rewrite the layers of ``model`` in place and add one LayerReport for each, in graph order.

    Raises:
        ModelFileError: layers that would be binary have weights that are exactly 0, and ``options.zero_weights`` is
            "error"; names the first of them, and nothing has been rewritten.
    """
    graph = model.graph
    graph.sort()
    facts = BinaryFacts(graph)
    layers = [_examine(node, facts) for node in graph if is_standard(node, *LAYERS)]
    with_zeros = [layer for layer in layers if layer.has_zeros]
    if with_zeros and options.zero_weights == "error":
        raise ModelFileError(_zeros_message(with_zeros))
    if options.zero_weights == "float":
        for layer in with_zeros:
            layer.form.reasons.append(f"{_zeros(layer)} are exactly 0 (--zero-weights float)")
    plain = Unscaler()
    for layer in layers:
        report.layers.append(_report(layer))
        if not layer.form.reasons:
            x = plain(layer.form.activation)
            write_layer(graph, layer.form, layer.weights, layer.values, x)


def _examine(node: ir.Node, facts: BinaryFacts) -> _Layer:
    if node.op_type == "ConvTranspose":
        form = LayerForm(node, activation=node.inputs[0], reasons=["transposed convolutions do not run on bits"])
        kernel = constant_weights(form, node.inputs[1])
        if kernel is not None and kernel.ndim >= 2:
            # (C, O / group, positions...): outputs first, as everywhere.
            form.weights = np.moveaxis(kernel, 0, -1).reshape(
                kernel.shape[1], math.prod(kernel.shape[2:]), kernel.shape[0]
            )
    else:
        form = read_convolution(node) if node.op_type == "Conv" else read_product(node)
    fact = facts.of(form.activation)
    values = fact if isinstance(fact, BinaryValues) else None
    words = (
        "nothing computed"
        if form.activation is None
        else fact.words
        if values
        else fact or describe_values(form.activation)
    )
    layer = _Layer(
        form, values, None if form.weights is None else judge_weights(form.weights, values is not None), words
    )
    if form.activation is not None and values is None:
        form.reasons.append(f"its input is not binary: {words}")
    if isinstance(layer.weights, RealWeights):
        form.reasons.append(f"its weights are not binary: {layer.weights.words}")
    elif layer.weights is not None:
        if layer.weights.signs[0].size > _LONGEST_SUM:
            form.reasons.append(f"it sums more than {_LONGEST_SUM:,} products, which float32 does not hold exactly")
        if values is not None and not scales_fit(form, layer.weights, values):
            form.reasons.append("the scale of its weights does not fit float32")
    if values is not None and values.offset != 0 and form.geometry is not None and any(form.geometry.pads):
        form.reasons.append(f"it pads {words} with 0, which is not done on bits")
    return layer


def _report(layer: _Layer) -> LayerReport:
    form, weights = layer.form, layer.binary_weights
    if weights is None and isinstance(layer.weights, RealWeights):
        words, spread = layer.weights.words, layer.weights.spread
    elif weights is not None:
        words, spread = weights.words, 0.0
    else:
        words, spread = "no constant" if form.activation is not None else "constants", 0.0
    binary = not form.reasons
    return LayerReport(
        name=layer_name(form.node),
        op=form.node.op_type,
        binary=binary,
        activations=layer.activation_words,
        weights=words,
        reasons=tuple(form.reasons),
        deviation=0.0 if weights is None else weights.deviation,
        zero_weights=weights.zeros if binary and weights is not None else 0,
        distance=0.0 if binary else len(form.reasons) + spread,
    )


def _zeros(layer: _Layer) -> str:
    return f"{layer.binary_weights.zeros:,} of its {layer.binary_weights.signs.size:,} weights"


def _zeros_message(layers: list[_Layer]) -> str:
    named = [
        f"'{layer_name(layer.form.node)}' ({_zeros(layer).replace('its ', '').replace(' weights', '')})"
        for layer in layers[:_MOST_NAMED]
    ]
    more = f" and {len(layers) - _MOST_NAMED} more" if len(layers) > _MOST_NAMED else ""
    subject = "1 layer that is" if len(layers) == 1 else f"{len(layers)} layers that are"
    return (
        f"The weights of {subject} otherwise binary hold exact zeros, which are neither +a nor -a: {', '.join(named)}{more}; "
        "choose --zero-weights -1 to make them -a, or --zero-weights float to keep these layers real-valued."
    )
