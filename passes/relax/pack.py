"""Turn signs into packed words and let binary layers read words.

Before::

    s = bnn.sign(x, t): float32 (1, 14, 14, 512);  r = concat(slice(s), slice(s), axis=1);  y = bnn.conv2d(r, …)
After::

    p = bnn.sign_pack(x, t): uint32 (1, 14, 14, 16);  r = concat(slice(p), slice(p), axis=1);  y = bnn.packed_conv2d(r, …)

A sign that is 0 at its threshold is packed into two planes, as ``bnn.ternary`` is.
Data movement between the sign and the layer (rolls, concatenations, channel splits) moves words instead of floats; where it
would cut a word (channel counts that are no multiple of 32, reshapes), the floats are moved and packed afterwards.
Where: after ``to_channels_last``, since words run along the last axis.
Not handled: a binary layer whose input is not made of signs, since its values could be anything: CompileError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.bits import plane_axis
from bnn_deploy.dialect.operators import ConvolutionAttributes, call, is_three_valued
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import call_of, layer_identifier, operator_name, slice_of, static_shape
from bnn_deploy.passes.relax.rewriter import DataflowRewriter
from bnn_deploy.targets.kernels.words import WORD_BITS

_LAYERS = ("bnn.conv2d", "bnn.tap_scaled_conv2d", "bnn.linear")
# Moves elements in ways that words cannot follow.
_FLOAT_NAMES = "reshape permute_dims squeeze expand_dims flatten broadcast_to tile take"
_FLOAT_MOVEMENT = {f"relax.{name}" for name in _FLOAT_NAMES.split()}


def pack(module: tvm.IRModule) -> tvm.IRModule:
    """Run the pass; see the module's docstring."""
    return _Pack(module).run()


@dataclass(frozen=True)
class _Words:
    """A packed tensor; ``ternary`` ones carry two planes on an axis of their own, see ``plane_axis``."""

    value: relax.Expr
    ternary: bool


class _Pack(DataflowRewriter):
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.packed: dict[relax.Var, _Words] = {}

    def rewrite(self, variable: relax.Var, value: relax.Call | relax.TupleGetItem) -> relax.Expr | None:
        name = operator_name(value)
        if name not in _LAYERS:
            return None
        x, *parameters = value.args
        words = self._words(x, self.layer_name(variable))
        if name == "bnn.linear":
            attributes = dict(value.attrs.items()) | {"ternary": int(words.ternary)}
        else:
            attributes = vars(replace(ConvolutionAttributes.of(value), ternary=int(words.ternary)))
        return self.emit(call(name.replace("bnn.", "bnn.packed_"), [words.value, *parameters], attributes))

    def _words(self, x: relax.Expr, layer: str) -> _Words:
        """The packed form of a -1/0/+1 tensor of the old function, made once per tensor."""
        if x not in self.packed:
            own, self._name = self._name, layer_identifier(x)
            words = self.packed[x] = self._pack(x, layer)
            self._name = own
            held = self.onnx_values.get(x.name)
            if held is not None:
                self.note(words.value, replace(held, channels=static_shape(x)[-1], ternary=int(words.ternary)))
        return self.packed[x]

    def _pack(self, x: relax.Expr, layer: str) -> _Words:
        value = self.values.get(x)
        sign = call_of(value, "bnn.sign", "bnn.ternary")
        if sign is not None:
            arguments = [self.lookup(argument) for argument in sign.args]
            words = self.emit(call(f"{operator_name(sign)}_pack", arguments, dict((sign.attrs or {}).items())))
            return _Words(words, ternary=is_three_valued(sign))
        ternary = self._is_ternary(x, layer)
        sources = moved_from(value, self.values) or []
        whole = _keeps_words_whole(value, sources, self.values)
        movement = self._move_words(value, sources, layer) if whole else None
        if movement is not None:
            return movement
        moved = self.lookup(x)
        if ternary:
            return _Words(self.emit(call("bnn.ternary_pack", [moved])), ternary=True)
        zero = relax.const(np.zeros(1, "float32"))
        return _Words(self.emit(call("bnn.sign_pack", [moved, zero], {"zero": -1})), ternary=False)

    def _move_words(self, value: relax.Expr, sources: list[relax.Expr], layer: str) -> _Words | None:
        packed = [self._words(source, layer) for source in sources]
        if len({words.ternary for words in packed}) > 1:
            return None
        ternary = packed[0].ternary
        last = len(static_shape(sources[0])) - 1

        def axis_of_words(axis: int) -> int:
            """Where an axis of the floats is in the words."""
            axis %= last + 1
            return axis + (ternary and axis >= plane_axis(last + 1))

        if operator_name(value) == "relax.concat":
            axis = axis_of_words(int(value.attrs.axis))
            return _Words(self.emit(relax.op.concat([words.value for words in packed], axis=axis)), ternary)
        axes, begin, end, strides = slice_of(value, self.values)
        on_words = [axis % (last + 1) == last for axis in axes]
        begin = [b // WORD_BITS if w else b for b, w in zip(begin, on_words, strict=True)]
        end = [-(-e // WORD_BITS) if w else e for e, w in zip(end, on_words, strict=True)]
        axes = [axis_of_words(axis) for axis in axes]
        return _Words(self.emit(relax.op.strided_slice(packed[0].value, axes, begin, end, strides)), ternary)

    def _is_ternary(self, x: relax.Expr, layer: str) -> bool:
        """Whether ``x``, a tensor of signs, may hold zeros; raises CompileError when it is not made of signs alone."""
        value = self.values.get(x)
        name = operator_name(value)
        if name in ("bnn.sign", "bnn.ternary"):
            return is_three_valued(value)
        sources = moved_from(value, self.values)
        if sources is None:
            raise CompileError(
                f"Layer '{layer}' is binary but its input comes from '{name or 'the network input'}': put a Sign or Ternary "
                "before it, with nothing but data movement (Slice, Concat, Split, Reshape) between."
            )
        return any([self._is_ternary(source, layer) for source in sources])


def moved_from(value: relax.Expr | None, values: Mapping[relax.Var, relax.Expr]) -> list[relax.Expr] | None:
    """The tensors that ``value`` only moves around, or None when it computes something."""
    movement = call_of(value, "relax.concat", "relax.strided_slice", *_FLOAT_MOVEMENT)
    if movement is not None:
        return list(movement.args[0].fields) if operator_name(movement) == "relax.concat" else [movement.args[0]]
    if isinstance(value, relax.TupleGetItem) and operator_name(values.get(value.tuple_value)) == "relax.split":
        return [values[value.tuple_value].args[0]]
    return None


def _keeps_words_whole(value: relax.Expr, sources: list[relax.Expr], values: Mapping[relax.Var, relax.Expr]) -> bool:
    last = len(static_shape(sources[0])) - 1
    name = operator_name(value)
    if name in _FLOAT_MOVEMENT:
        return False
    channels = [static_shape(source)[-1] for source in sources]
    if name == "relax.concat":
        return int(value.attrs.axis) % (last + 1) != last or all(count % WORD_BITS == 0 for count in channels)
    for axis, first, after, step in zip(*slice_of(value, values), strict=True):
        whole = step == 1 and first % WORD_BITS == 0 and (after == channels[0] or after % WORD_BITS == 0)
        if axis % (last + 1) == last and not whole:
            return False
    return True
