"""How each operator reads and writes images channels last: one rule per operator, used by ``to_channels_last``.

A rule gets the pass and the old call and emits the new one; it returns None when it cannot, and the call stays channels first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tvm import relax

from bnn_deploy.passes.relax.expressions import constant_array, integers, is_constant, static_shape

if TYPE_CHECKING:
    from bnn_deploy.passes.relax.to_channels_last import ToChannelsLast

# Channels-first axis -> channels-last axis.
AXIS = {0: 0, 1: 3, 2: 1, 3: 2}

_UNARY = "abs negative exp log sqrt rsqrt sin cos tanh sigmoid erf round floor ceil clip nn.relu nn.silu nn.gelu nn.leakyrelu"
_BINARY = "add subtract multiply divide maximum minimum power"
# Operators that treat every element alike, broadcasting from the right.
ELEMENTWISE = {f"relax.{name}" for name in (*_UNARY.split(), *_BINARY.split())} | {"bnn.sign", "bnn.ternary"}


def _conv2d(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
    attributes = value.attrs
    if not is_constant(value.args[1]) or int(attributes.groups) != 1:
        return None
    # HWIO: output channels innermost, the axis that vectorises.
    weight = np.ascontiguousarray(constant_array(value.args[1]).transpose(2, 3, 1, 0))
    return layout.emit(
        relax.op.nn.conv2d(
            layout.last(value.args[0]),
            relax.const(weight),
            strides=list(attributes.strides),
            padding=list(attributes.padding),
            dilation=list(attributes.dilation),
            data_layout="NHWC",
            kernel_layout="HWIO",
        )
    )


def _pool(operator: Callable[..., relax.Expr]) -> Callable[[ToChannelsLast, relax.Call], relax.Expr]:
    def rule(layout: ToChannelsLast, value: relax.Call) -> relax.Expr:
        attributes = value.attrs
        return layout.emit(
            operator(
                layout.last(value.args[0]),
                pool_size=list(attributes.pool_size),
                strides=list(attributes.strides),
                padding=list(attributes.padding),
                dilation=list(attributes.dilation),
                ceil_mode=bool(attributes.ceil_mode),
                count_include_pad=bool(attributes.count_include_pad),
                layout="NHWC",
            )
        )

    return rule


def _prelu(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
    x, slope = value.args
    if not is_constant(slope):
        return None
    values = constant_array(slope).reshape(-1)
    if values.size != 1 and int(value.attrs.axis) % 4 != 1:
        return None
    channels = static_shape(x)[1]
    return layout.emit(
        relax.op.nn.prelu(layout.last(x), relax.const(np.broadcast_to(values, (channels,)).copy()), axis=3)
    )


def _group_norm(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
    x, gamma, beta = value.args
    attributes = value.attrs
    axes = [int(axis) for axis in attributes.axes]
    if int(attributes.channel_axis) % 4 != 1 or sorted(axis % 4 for axis in axes) != [2, 3]:
        return None
    groups, epsilon = int(attributes.num_groups), float(attributes.epsilon)
    return layout.emit(
        relax.op.nn.group_norm(layout.last(x), gamma, beta, groups, channel_axis=3, axes=[1, 2], epsilon=epsilon)
    )


def _concat(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
    fields = [layout.last(field) for field in value.args[0].fields]
    return layout.emit(relax.op.concat(fields, axis=AXIS[int(value.attrs.axis) % 4]))


def _split(layout: ToChannelsLast, value: relax.Call) -> relax.Expr:
    sections = value.attrs.indices_or_sections
    sections = [int(s) for s in sections] if hasattr(sections, "__len__") else int(sections)
    return layout.emit(relax.op.split(layout.last(value.args[0]), sections, axis=AXIS[int(value.attrs.axis) % 4]))


def _strided_slice(layout: ToChannelsLast, value: relax.Call) -> relax.Expr:
    x, axes, begin, end, strides = value.args
    lists = (integers(begin), integers(end), integers(strides))
    return layout.emit(relax.op.strided_slice(layout.last(x), layout.axes(integers(axes)), *lists))


def _reduce(operator: Callable[..., relax.Expr]) -> Callable[[ToChannelsLast, relax.Call], relax.Expr | None]:
    def rule(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
        if value.attrs.axis is None:
            return None
        axes = [int(axis) % 4 for axis in value.attrs.axis]
        keepdims = bool(value.attrs.keepdims)
        # Without the reduced axes, only (N, C) reads the same in both layouts.
        if not keepdims and sorted(axes) != [2, 3]:
            return None
        return layout.emit(operator(layout.last(value.args[0]), layout.axes(axes), keepdims=keepdims))

    return rule


def _softmax(layout: ToChannelsLast, value: relax.Call) -> relax.Expr:
    return layout.emit(relax.op.nn.softmax(layout.last(value.args[0]), axis=AXIS[int(value.attrs.axis) % 4]))


def _take(layout: ToChannelsLast, value: relax.Call) -> relax.Expr | None:
    x, indices = value.args
    if not is_constant(indices) or len(static_shape(indices)) != 1 or value.attrs.axis is None:
        return None
    axis, mode = AXIS[int(value.attrs.axis) % 4], str(value.attrs.mode)
    return layout.emit(relax.op.take(layout.last(x), indices, axis=axis, mode=mode))


RULES: dict[str, Callable[[ToChannelsLast, relax.Call], relax.Expr | None]] = {
    "relax.nn.conv2d": _conv2d,
    "relax.nn.max_pool2d": _pool(relax.op.nn.max_pool2d),
    "relax.nn.avg_pool2d": _pool(relax.op.nn.avg_pool2d),
    "relax.nn.prelu": _prelu,
    "relax.nn.group_norm": _group_norm,
    "relax.nn.softmax": _softmax,
    "relax.concat": _concat,
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.take": _take,
    "relax.mean": _reduce(relax.op.mean),
    "relax.sum": _reduce(relax.op.sum),
    "relax.max": _reduce(relax.op.max),
    "relax.min": _reduce(relax.op.min),
}
