"""Write a layer as binary operators.

Before::

    y = Conv(x, ±a weights, b)
After, as ``bnn-deploy export`` writes it::

    y = Add(Mul(BinaryConv(s, packed), a (1, O, 1, 1)), b (1, O, 1, 1))

The scale is the float64 product of the weights', the activation's and the layer's own, rounded once. Scales of one and
biases of zero are left out.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.bits import pack_bits
from bnn_deploy.passes.onnx.graph import static_shape
from bnn_deploy.passes.onnx.layers.binary_values import BinaryValues
from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights
from bnn_deploy.passes.onnx.layers.layer_form import Geometry, LayerForm
from bnn_deploy.passes.onnx.layers.node_writer import NodeWriter


def write_layer(graph: ir.Graph, form: LayerForm, weights: BinaryWeights, values: BinaryValues, x: ir.Value) -> None:
    """Replace ``form.node``.

    Args:
        graph: changed in place.
        form: without reasons.
        weights: of ``form.weights``.
        values: what ``form.activation`` holds.
        x: the activation itself, -1, 0 and +1; see ``passes.onnx.unscale``.
    """
    writer = NodeWriter(graph, form.node)
    scale = weights.scale * (values.scale * form.factor)
    bias = _bias(form, weights, values)
    if form.geometry is not None:
        writer.replace(_convolution(writer, form.geometry, weights, scale, bias, x))
    else:
        writer.replace(_product(writer, form, weights, scale, bias, x))


def scales_fit(form: LayerForm, weights: BinaryWeights, values: BinaryValues) -> bool:
    """Whether the scales are numbers of float32, neither overflowing nor lost."""
    with np.errstate(over="ignore"):
        scale = (weights.scale * (values.scale * form.factor)).astype(np.float32)
    return bool(np.isfinite(scale).all() and np.all((scale != 0) | (weights.scale == 0)))


def _bias(form: LayerForm, weights: BinaryWeights, values: BinaryValues) -> np.ndarray | None:
    """float64 (O,): the layer's own, and what the activation's offset adds: b times the sum of the weights."""
    bias = form.bias
    if values.offset != 0:
        sums = np.where(weights.signs, 1.0, -1.0).sum(axis=2)
        per_tap = weights.scale if weights.per_tap else weights.scale[:, None]
        offset = values.offset * form.factor * (sums * per_tap).sum(axis=1)
        bias = offset if bias is None else bias + offset
    return bias if bias is not None and np.any(bias) else None


def _packed(writer: NodeWriter, weights: BinaryWeights) -> ir.Value:
    name = str(next((value.name for value in writer.old.inputs[:2] if value.const_value is not None), writer.name))
    return writer.constant(
        f"{name.removesuffix('.weight')}.packed", pack_bits(weights.signs.reshape(len(weights.signs), -1))
    )


def _convolution(
    writer: NodeWriter,
    geometry: Geometry,
    weights: BinaryWeights,
    scale: np.ndarray,
    bias: np.ndarray | None,
    x: ir.Value,
) -> ir.Value:
    shape = None if writer.old.outputs[0].shape is None else list(writer.old.outputs[0].shape)
    if geometry.flat:
        axis = writer.constant(f"{writer.name}/axes", np.array([2], np.int64))
        known = static_shape(x) is not None
        x = writer.write("Unsqueeze", [x, axis], shape=[*x.shape[:2], 1, *x.shape[2:]] if known else None)
        shape = None if shape is None else [*shape[:2], 1, *shape[2:]]
    attributes = {
        "kernel_shape": list(geometry.kernel_shape),
        "strides": list(geometry.strides),
        "pads": list(geometry.pads),
        "group": geometry.group,
        "in_channels": geometry.in_channels,
    }
    operator, inputs = "BinaryConv", [x, _packed(writer, weights)]
    if weights.per_tap:
        operator = "TapScaledBinaryConv"
        inputs.append(writer.constant(f"{writer.name}/scale", scale))
    y = writer.write(operator, inputs, attributes, shape, ours=True, name=writer.name)
    if not weights.per_tap:
        y = _per_output(writer, "Mul", y, scale, (1, -1, 1, 1), shape)
    y = _per_output(writer, "Add", y, bias, (1, -1, 1, 1), shape)
    if geometry.flat:
        y = writer.write("Squeeze", [y, axis], shape=writer.old.outputs[0].shape)
    return y


def _product(
    writer: NodeWriter,
    form: LayerForm,
    weights: BinaryWeights,
    scale: np.ndarray,
    bias: np.ndarray | None,
    x: ir.Value,
) -> ir.Value:
    old = writer.old.outputs[0].shape
    shape = None if old is None else _swapped(old) if form.transpose_output else list(old)
    if form.transpose_input:
        x = _transposed(writer, x, form.rank, None if static_shape(x) is None else _swapped(x.shape))
    attributes = {"in_features": weights.signs.shape[2]}
    y = writer.write("BinaryLinear", [x, _packed(writer, weights)], attributes, shape, ours=True, name=writer.name)
    y = _per_output(writer, "Mul", y, scale, (-1,), shape)
    y = _per_output(writer, "Add", y, bias, (-1,), shape)
    if form.transpose_output:
        y = _transposed(writer, y, form.rank, old)
    if form.addend is None:
        return y
    addend = form.addend
    if form.addend_factor != 1.0:
        factor = writer.constant(f"{writer.name}/beta", np.array(form.addend_factor, np.float32))
        addend = writer.write("Mul", [addend, factor], shape=form.addend.shape)
    return writer.write("Add", [y, addend], shape=old)


def _per_output(
    writer: NodeWriter,
    operator: str,
    y: ir.Value,
    numbers: np.ndarray | None,
    layout: tuple[int, ...],
    shape: list | None,
) -> ir.Value:
    neutral = 1 if operator == "Mul" else 0
    if numbers is None or np.all(numbers == neutral):
        return y
    name = f"{writer.name}/{'scale' if operator == 'Mul' else 'bias'}"
    return writer.write(operator, [y, writer.constant(name, numbers.reshape(layout))], shape=shape)


def _transposed(writer: NodeWriter, value: ir.Value, rank: int, shape: object) -> ir.Value:
    order = [*range(rank - 2), rank - 1, rank - 2]
    return writer.write("Transpose", [value], {"perm": order}, shape)


def _swapped(shape: ir.Shape) -> list:
    *leading, rows, columns = shape
    return [*leading, columns, rows]
