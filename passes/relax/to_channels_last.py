"""Lay images out channels last (NHWC), so that one pixel's channels are neighbours and pack into words.

Before::

    y = conv2d(x: (1, 3, 32, 32), w);  z = prelu(y, slope, axis=1);  m = mean(z, axis=[2, 3])
After::

    t = permute_dims(x, [0, 2, 3, 1]);  y = conv2d(t: (1, 32, 32, 3), w', NHWC, HWIO)
    z = prelu(y, slope, axis=3);  m = mean(z, axis=[1, 2])

Where: after folding (which counts channels from axis 1) and before packing (which packs the last axis).
Not handled: operators without a rule; they keep their NCHW form between two transposes, so that any graph stays correct.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import ConvolutionAttributes, call
from bnn_deploy.dialect.values import Value
from bnn_deploy.passes.relax.channels_last_rules import AXIS, ELEMENTWISE, RULES
from bnn_deploy.passes.relax.expressions import constant_array, is_constant, operator_name, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter


def to_channels_last(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return ToChannelsLast(module).run()


class ToChannelsLast(DataflowRewriter):
    """The pass; ``RULES`` call ``last`` for their arguments."""

    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.channels_last: set[relax.Var] = set()
        self.converted: dict[tuple[relax.Var, bool], relax.Expr] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        name = operator_name(value)
        tensor = isinstance(variable.ty, relax.TensorType) and len(static_shape(variable)) == 4
        reads_image = any(_rank(argument) == 4 for argument in _tensors(value))
        result = None
        if name in ("bnn.conv2d", "bnn.tap_scaled_conv2d"):
            attributes = replace(ConvolutionAttributes.of(value), channels_last=1)
            result = self.emit(call(name, [self.last(value.args[0]), *value.args[1:]], attributes))
        elif name in ELEMENTWISE and tensor:
            # The bounds of a clip are numbers, not tensors.
            arguments = [self.last(a) if isinstance(a.ty, relax.TensorType) else a for a in value.args]
            if all(argument is not None for argument in arguments):
                result = self.emit(relax.Call(value.op, arguments, value.attrs))
        elif name in RULES and reads_image:
            result = RULES[name](self, value)
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in self.channels_last:
            result = self.emit(relax.TupleGetItem(self.lookup(value.tuple_value), value.index))
        if result is not None and (tensor or isinstance(variable.ty, relax.TupleType)):
            self.channels_last.add(variable)
        return result

    def value_after(self, variable: relax.Var, value: Value) -> Value:
        """Channels last where the pass made it so."""
        moved = variable in self.channels_last and isinstance(variable.ty, relax.TensorType) and _rank(variable) == 4
        return replace(value, channels_last=int(moved))

    def last(self, expression: relax.Expr) -> relax.Expr | None:
        """An argument channels last: rank 4 with axes permuted; constants of lower rank broadcast as before. None: cannot."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.last(field) for field in expression.fields])
        if is_constant(expression):
            array = constant_array(expression)
            if array.size == 1:
                # Without a type named, int64 becomes int32.
                return relax.const(array.reshape((1,) * 4), str(array.dtype))
            aligned = array.reshape((1,) * (4 - array.ndim) + array.shape)
            return relax.const(np.ascontiguousarray(aligned.transpose(0, 2, 3, 1)), str(array.dtype))
        if _rank(expression) != 4:
            return None
        return self._converted(expression, to_last=True)

    def lookup(self, expression: relax.Expr) -> relax.Expr:
        """What a copied operator reads: the channels-first form it was written for."""
        if isinstance(expression, relax.Var) and expression in self.channels_last and _rank(expression) == 4:
            return self._converted(expression, to_last=False)
        return super().lookup(expression)

    def _converted(self, variable: relax.Var, to_last: bool) -> relax.Expr:
        new = super().lookup(variable)
        if (variable in self.channels_last) == to_last:
            return new
        if (variable, to_last) not in self.converted:
            n, c, h, w = static_shape(variable)
            order, shape = ((0, 2, 3, 1), (n, h, w, c)) if to_last else ((0, 3, 1, 2), (n, c, h, w))
            # One channel or one pixel: the bytes stay where they are.
            trivial = c == 1 or h * w == 1
            moved = relax.op.reshape(new, shape) if trivial else relax.op.permute_dims(new, order)
            self.converted[variable, to_last] = self.emit(moved)
            held = self.onnx_values.get(variable.name)
            if held is not None:
                self.note(self.converted[variable, to_last], replace(held, channels_last=int(to_last)))
        return self.converted[variable, to_last]

    def axes(self, axes: list[int]) -> list[int]:
        """Where channels-first axes (negative ones too) lie channels last."""
        return [AXIS[axis % 4] for axis in axes]


def _tensors(value: relax.Expr) -> list[relax.Expr]:
    arguments = value.args if isinstance(value, relax.Call) else [value.tuple_value]
    return [field for a in arguments for field in (a.fields if isinstance(a, relax.Tuple) else [a])]


def _rank(expression: relax.Expr) -> int:
    ty = getattr(expression, "ty", None)
    return len(static_shape(expression)) if isinstance(ty, relax.TensorType) else -1
