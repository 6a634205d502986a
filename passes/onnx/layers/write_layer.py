"""Write a layer as binary operators.

Before::

    y = Conv(x, ±a weights, b)
After, as ``bnn-deploy export`` writes it::

    y = Add(Mul(BinaryConv(s, packed), a (1, O, 1, 1)), b (1, O, 1, 1))

The scale is the float64 product of the weights', the activation's and the layer's own, rounded once. Scales of one and
biases of zero are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from bnn_deploy.bits import pack_bits
from bnn_deploy.passes.onnx.layers.binary_values import BinaryValues
from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights
from bnn_deploy.passes.onnx.layers.layer_form import Geometry, LayerForm
from bnn_deploy.passes.onnx.node_writer import Extents, NodeWriter


@dataclass(frozen=True)
class BinaryLayer:
    """A layer that multiplies signs with ±a.

    Attributes:
        form: the layer, taken apart.
        activation: the value that it reads, which holds ``values``.
        weights: of ``form.weights``.
    """

    form: LayerForm
    activation: ir.Value
    values: BinaryValues
    weights: BinaryWeights

    @property
    def scale(self) -> np.ndarray:
        """float64, like ``weights.scale``: of a sum of products of -1, 0 and +1."""
        return self.weights.scale * (self.values.scale * self.form.factor)

    @property
    def scale_fits(self) -> bool:
        """Whether the scales are numbers of float32, neither overflowing nor lost."""
        with np.errstate(over="ignore"):
            scale = self.scale.astype(np.float32)
        return bool(np.isfinite(scale).all() and np.all((scale != 0) | (self.weights.scale == 0)))

    @property
    def bias(self) -> np.ndarray | None:
        """float64 (O,): the layer's own, and what the activation's offset adds: b times the sum of the weights."""
        bias, weights = self.form.bias, self.weights
        if self.values.offset != 0:
            sums = np.where(weights.signs, 1.0, -1.0).sum(axis=2)
            per_tap = weights.scale if weights.per_tap else weights.scale[:, None]
            offset = self.values.offset * self.form.factor * (sums * per_tap).sum(axis=1)
            bias = offset if bias is None else bias + offset
        return bias if bias is not None and np.any(bias) else None


def write_layer(graph: ir.Graph, layer: BinaryLayer, x: ir.Value) -> None:
    """Replace ``layer.form.node``.

    Args:
        graph: changed in place.
        layer: its form without reasons, its scales numbers of float32.
        x: the activation itself, -1, 0 and +1; see ``unscale``.
    """
    writer, geometry = NodeWriter(graph, layer.form.node), layer.form.geometry
    writer.replace(_product(writer, layer, x) if geometry is None else _convolution(writer, layer, geometry, x))


def _packed(writer: NodeWriter, weights: BinaryWeights) -> ir.Value:
    stored = (value for value in writer.old.inputs[:2] if value is not None and value.const_value is not None)
    name = str(next((value.name for value in stored), writer.name))
    return writer.constant(
        f"{name.removesuffix('.weight')}.packed", pack_bits(weights.signs.reshape(len(weights.signs), -1))
    )


def _convolution(writer: NodeWriter, layer: BinaryLayer, geometry: Geometry, x: ir.Value) -> ir.Value:
    result, weights = writer.old.outputs[0].shape, layer.weights
    shape = None if result is None else list(result)
    if geometry.flat:
        axis = writer.constant(f"{writer.name}/axes", np.array([2], np.int64))
        x = writer.write("Unsqueeze", [x, axis], shape=None if x.shape is None else [*x.shape[:2], 1, *x.shape[2:]])
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
        inputs.append(writer.constant(f"{writer.name}/scale", layer.scale))
    y = writer.write(operator, inputs, attributes, shape, ours=True, name=writer.name)
    if not weights.per_tap:
        y = _per_output(writer, "Mul", y, layer.scale, (1, -1, 1, 1), shape)
    y = _per_output(writer, "Add", y, layer.bias, (1, -1, 1, 1), shape)
    return writer.write("Squeeze", [y, axis], shape=result) if geometry.flat else y


def _product(writer: NodeWriter, layer: BinaryLayer, x: ir.Value) -> ir.Value:
    form, result = layer.form, writer.old.outputs[0].shape
    shape = _swapped(result) if form.transpose_output else result
    if form.transpose_input:
        x = _transposed(writer, x, form.rank, _swapped(x.shape))
    attributes = {"in_features": layer.weights.signs.shape[2]}
    y = writer.write(
        "BinaryLinear", [x, _packed(writer, layer.weights)], attributes, shape, ours=True, name=writer.name
    )
    y = _per_output(writer, "Mul", y, layer.scale, (-1,), shape)
    y = _per_output(writer, "Add", y, layer.bias, (-1,), shape)
    if form.transpose_output:
        y = _transposed(writer, y, form.rank, result)
    if form.addend is None:
        return y
    addend = form.addend
    if form.addend_factor != 1.0:
        factor = writer.constant(f"{writer.name}/beta", np.array(form.addend_factor, np.float32))
        addend = writer.write("Mul", [addend, factor], shape=form.addend.shape)
    return writer.write("Add", [y, addend], shape=result)


def _per_output(
    writer: NodeWriter,
    operator: str,
    y: ir.Value,
    numbers: np.ndarray | None,
    layout: tuple[int, ...],
    shape: Extents | None,
) -> ir.Value:
    neutral = 1 if operator == "Mul" else 0
    if numbers is None or np.all(numbers == neutral):
        return y
    name = f"{writer.name}/{'scale' if operator == 'Mul' else 'bias'}"
    return writer.write(operator, [y, writer.constant(name, numbers.reshape(layout))], shape=shape)


def _transposed(writer: NodeWriter, value: ir.Value, rank: int, shape: Extents | None) -> ir.Value:
    order = [*range(rank - 2), rank - 1, rank - 2]
    return writer.write("Transpose", [value], {"perm": order}, shape)


def _swapped(shape: ir.Shape | None) -> Extents | None:
    if shape is None:
        return None
    *leading, rows, columns = shape
    return [*leading, columns, rows]
