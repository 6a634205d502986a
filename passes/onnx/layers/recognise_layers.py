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

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.standard_operators import LAYERS
from bnn_deploy.passes.onnx.activations.describe_values import describe_values
from bnn_deploy.passes.onnx.graph import is_standard, layer_name
from bnn_deploy.passes.onnx.import_report import LayerReport, ZeroWeights
from bnn_deploy.passes.onnx.layers.binary_values import BinaryFacts, BinaryValues
from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights, RealWeights, judge_weights
from bnn_deploy.passes.onnx.layers.layer_form import LayerForm
from bnn_deploy.passes.onnx.layers.read_convolution import read_convolution, read_transposed_convolution
from bnn_deploy.passes.onnx.layers.read_product import read_product
from bnn_deploy.passes.onnx.layers.unscale import Unscaler
from bnn_deploy.passes.onnx.layers.write_layer import BinaryLayer, write_layer

_READERS: dict[str, Callable[[ir.Node], LayerForm]] = {
    "Conv": read_convolution,
    "ConvTranspose": read_transposed_convolution,
    "Gemm": read_product,
    "MatMul": read_product,
}
# float32 holds every integer up to here, so that a sum of so many ±1 is exact.
_LONGEST_SUM = 2**24 - 1
_MOST_NAMED = 3


@dataclass(frozen=True)
class _Layer:
    """A layer as it was examined.

    Attributes:
        values: what its activation holds, in words where it is not binary.
        weights: None where they are computed.
    """

    form: LayerForm
    values: BinaryValues | str
    weights: BinaryWeights | RealWeights | None

    @property
    def words(self) -> str:
        """What the activation holds, for the report."""
        return self.values if isinstance(self.values, str) else self.values.words

    @property
    def on_bits(self) -> BinaryLayer | None:
        """Signs and ±a; None where one of them is something else. ``form.reasons`` may speak against it still."""
        activation, values, weights = self.form.activation, self.values, self.weights
        if activation is None or not isinstance(values, BinaryValues) or not isinstance(weights, BinaryWeights):
            return None
        return BinaryLayer(self.form, activation, values, weights)


def recognise_layers(graph: ir.Graph, zero_weights: ZeroWeights = "error") -> list[LayerReport]:
    """Rewrite the layers of ``graph`` in place; the report of each, in graph order.

    Raises:
        ModelFileError: layers that would be binary have weights that are exactly 0, and ``zero_weights`` is "error"; names
            the first of them, and nothing has been rewritten.
    """
    graph.sort()
    facts = BinaryFacts(graph)
    layers = [_examine(node, facts) for node in graph if is_standard(node, *LAYERS)]
    with_zeros = [layer for layer in _binary(layers) if layer.weights.zeros]
    if with_zeros and zero_weights == "error":
        raise ModelFileError(_zeros_message(with_zeros))
    if zero_weights == "float":
        for binary in with_zeros:
            binary.form.reasons.append(f"{_zeros(binary)} are exactly 0 (--zero-weights float)")
    reports = [_report(layer) for layer in layers]
    plain = Unscaler()
    for binary in _binary(layers):
        write_layer(graph, binary, plain(binary.activation))
    return reports


def _examine(node: ir.Node, facts: BinaryFacts) -> _Layer:
    form = _READERS[node.op_type](node)
    fact = facts.of(form.activation)
    if fact is None:
        fact = "nothing computed" if form.activation is None else describe_values(form.activation)
    values = fact if isinstance(fact, BinaryValues) else None
    layer = _Layer(form, fact, None if form.weights is None else judge_weights(form.weights, values is not None))
    if form.activation is not None and values is None:
        form.reasons.append(f"its input is not binary: {layer.words}")
    if isinstance(layer.weights, RealWeights):
        form.reasons.append(f"its weights are not binary: {layer.weights.words}")
    elif layer.weights is not None and layer.weights.signs[0].size > _LONGEST_SUM:
        form.reasons.append(f"it sums more than {_LONGEST_SUM:,} products, which float32 does not hold exactly")
    if layer.on_bits is not None and not layer.on_bits.scale_fits:
        form.reasons.append("the scale of its weights does not fit float32")
    if values is not None and values.offset != 0 and form.geometry is not None and any(form.geometry.pads):
        form.reasons.append(f"it pads {layer.words} with 0, which is not done on bits")
    return layer


def _binary(layers: list[_Layer]) -> list[BinaryLayer]:
    """Those against which nothing speaks."""
    return [binary for layer in layers if (binary := layer.on_bits) is not None and not layer.form.reasons]


def _report(layer: _Layer) -> LayerReport:
    form, weights = layer.form, layer.weights
    missing = "no constant" if form.activation is not None else "constants"
    spread = weights.spread if isinstance(weights, RealWeights) else 0.0
    binary = not form.reasons
    return LayerReport(
        name=layer_name(form.node),
        op=form.node.op_type,
        binary=binary,
        activations=layer.words,
        weights=missing if weights is None else weights.words,
        reasons=tuple(form.reasons),
        deviation=weights.deviation if isinstance(weights, BinaryWeights) else 0.0,
        zero_weights=weights.zeros if binary and isinstance(weights, BinaryWeights) else 0,
        distance=0.0 if binary else len(form.reasons) + spread,
    )


def _zeros(layer: BinaryLayer) -> str:
    return f"{layer.weights.zeros:,} of its {layer.weights.signs.size:,} weights"


def _zeros_message(layers: list[BinaryLayer]) -> str:
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
