"""Fold batch norms, per-channel scales and biases into the layer before them.

Before::

    y = bnn.conv2d(x, w, 1, 0);  z = multiply(y, alpha);  n = batch_norm(z, gamma, beta, mean, variance)[0];  o = add(n, b)
After::

    o = bnn.conv2d(x, w, scale, shift)          scale = alpha*gamma/sqrt(variance+eps), shift = beta - mean*gamma/sqrt(..) + b

A float conv2d with constant weights takes the scale into its weights and the shift into one add; anything else becomes one
multiply and one add. Constants are combined in float64 and rounded once.
Where: after ``fold_threshold`` and before ``to_channels_last`` (channels are axis 1 here).
Not handled: a layer whose intermediate value is also read elsewhere, and batch norms with computed statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import (
    call_of,
    constant_array,
    is_constant,
    layer_identifier,
    operator_name,
    static_shape,
)
from bnn_deploy.passes.relax.rewriter import DataflowRewriter

_BINARY_LAYERS = ("bnn.conv2d", "bnn.tap_scaled_conv2d", "bnn.linear")


def fold_affine(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _FoldAffine(module).run()


@dataclass(frozen=True)
class _Affine:
    """``base * scale + shift`` per channel, both float64 of shape (C,); ``base`` is a variable of the old function."""

    base: relax.Var
    scale: np.ndarray
    shift: np.ndarray


class _FoldAffine(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.affine: dict[relax.Var, _Affine] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        if isinstance(value, relax.TupleGetItem):
            step = _normalisation(self.values.get(value.tuple_value)) if value.index == 0 else None
        else:
            step = _elementwise(value)
        return None if step is None else self._fold(variable, step)

    def _fold(self, variable: relax.Var, step: _Affine) -> relax.Expr:
        previous = self.affine.get(step.base)
        if previous is not None and self.uses[step.base] == 1:
            step = _Affine(previous.base, previous.scale * step.scale, previous.shift * step.scale + step.shift)
        self.affine[variable] = step
        return self._emit(step, static_shape(variable))

    def _emit(self, step: _Affine, shape: tuple[int, ...]) -> relax.Expr:
        alone = self.uses.get(step.base, 0) == 1
        layer = self.producer(step.base, *_BINARY_LAYERS, "relax.nn.conv2d") if alone else None
        if layer is not None:
            self._name = layer_identifier(step.base)  # reports speak of the convolution, not of what was folded into it
            fold = self._into_convolution if operator_name(layer) == "relax.nn.conv2d" else self._into_binary_layer
            folded = fold(layer, step, shape)
            if folded is not None:
                return folded
        y = self.lookup(step.base)
        if np.any(step.scale != 1):
            y = self.emit(relax.op.multiply(y, _constant(_per_channel(step.scale, shape))))
        return self._add(y, step.shift, shape)

    def _into_binary_layer(self, layer: relax.Call, step: _Affine, shape: tuple[int, ...]) -> relax.Expr | None:
        # The outputs of a linear layer are its last axis, which is axis 1 only of a matrix.
        if operator_name(layer) == "bnn.linear" and len(shape) != 2:
            return None
        x, weight, scale, shift = layer.args
        old_scale, old_shift = constant_array(scale).astype(np.float64), constant_array(shift).astype(np.float64)
        factor = step.scale if old_scale.ndim == 1 else step.scale[:, None]
        folded = [_constant(old_scale * factor), _constant(old_shift * step.scale + step.shift)]
        return self.emit(relax.Call(layer.op, [self.lookup(x), weight, *folded], layer.attrs))

    def _into_convolution(self, layer: relax.Call, step: _Affine, shape: tuple[int, ...]) -> relax.Expr | None:
        if not is_constant(layer.args[1]):
            return None
        weight = constant_array(layer.args[1]).astype(np.float64) * step.scale[:, None, None, None]
        y = self.emit(relax.Call(layer.op, [self.lookup(layer.args[0]), _constant(weight)], layer.attrs))
        return self._add(y, step.shift, shape)

    def _add(self, y: relax.Expr, shift: np.ndarray, shape: tuple[int, ...]) -> relax.Expr:
        if not np.any(shift):
            return y
        return self.emit(relax.op.add(y, _constant(_per_channel(shift, shape))))


def _constant(values: np.ndarray) -> relax.Expr:
    return relax.const(np.ascontiguousarray(values, dtype=np.float32))


def _per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values.reshape((1, -1) + (1,) * (len(shape) - 2))


def _normalisation(value: relax.Expr | None) -> _Affine | None:
    """The step of one batch norm in inference mode with constant parameters and statistics."""
    norm = call_of(value, "relax.nn.batch_norm")
    if norm is None:
        return None
    x, *parameters = norm.args
    if not isinstance(x, relax.Var) or not all(is_constant(p) for p in parameters):
        return None
    if int(norm.attrs.axis) != 1 or bool(norm.attrs.training):
        return None
    gamma, beta, mean, variance = (constant_array(p).astype(np.float64) for p in parameters)
    scale = (gamma if norm.attrs.scale else 1.0) / np.sqrt(variance + float(norm.attrs.epsilon))
    return _Affine(x, scale, (beta if norm.attrs.center else 0.0) - mean * scale)


def _elementwise(value: relax.Call) -> _Affine | None:
    """The step of one add, subtract, multiply or divide of a tensor with a constant per channel."""
    name = operator_name(value)
    if name not in ("relax.add", "relax.subtract", "relax.multiply", "relax.divide"):
        return None
    left, right = value.args
    swapped = is_constant(left)
    x, constant = (right, left) if swapped else (left, right)
    if not isinstance(x, relax.Var) or not is_constant(constant) or str(x.ty.dtype) != "float32":
        return None
    if static_shape(value) != static_shape(x):
        return None
    vector = _channel_vector(constant_array(constant), static_shape(x))
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    if name == "relax.add":
        return _Affine(x, one, vector)
    if name == "relax.subtract":
        return _Affine(x, -one, vector) if swapped else _Affine(x, one, -vector)
    if name == "relax.multiply":
        return _Affine(x, vector, zero)
    return None if swapped else _Affine(x, 1.0 / vector, zero)


def _channel_vector(constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """``constant`` as float64 (C,) when it broadcasts along axis 1 (channels) of ``shape`` only."""
    if len(shape) not in (2, 4) or constant.ndim > len(shape):
        return None
    aligned: np.ndarray = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if aligned.shape[0] != 1 or any(extent != 1 for extent in aligned.shape[2:]):
        return None
    return np.broadcast_to(aligned.reshape(-1), (shape[1],)).astype(np.float64)
