"""A second opinion on what a Relax network computes: numpy, one operator at a time, on floats and on packed words.

Written apart from the passes and kernels. Binary layers are sums of products of -1, 0, +1; words are unpacked with the
one packing convention of ``bnn_deploy.bits`` and their tail bits must be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst

from bnn_deploy.bits import unpack_bits
from bnn_deploy.dialect.operators import ConvolutionAttributes

Value = object  # an array, or a tuple of arrays


def evaluate(module: tvm.IRModule, *inputs: np.ndarray, precision: type = np.float64) -> np.ndarray:
    """The output of ``main``. Each operator works in float64 and rounds its result to ``precision``."""
    return evaluate_all(module, *inputs, precision=precision)[module["main"].body.body]


def evaluate_all(module: tvm.IRModule, *inputs: np.ndarray, precision: type = np.float64) -> dict[relax.Var, Value]:
    """What every variable of ``main`` holds."""
    main = module["main"]
    environment: dict[relax.Var, Value] = {}
    for parameter, array in zip(main.params, inputs, strict=True):
        environment[parameter] = np.asarray(array, precision)

    def value_of(expression: relax.Expr) -> Value:
        if isinstance(expression, relax.Var):
            return environment[expression]
        if isinstance(expression, GenericConst):
            array = expression.value.numpy()
            return array.astype(precision) if array.dtype.kind == "f" else array
        if isinstance(expression, relax.Tuple):
            return tuple(value_of(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return value_of(expression.tuple_value)[expression.index]
        if isinstance(expression, relax.Call):
            name = expression.op.name
            arguments = [value_of(a) if _is_tensor(a) else a for a in expression.args]
            return _rounded(OPERATORS[name](expression, *arguments), precision)
        raise NotImplementedError(f"no numpy meaning for {type(expression).__name__}")

    for block in main.body.blocks:
        for binding in block.bindings:
            environment[binding.var] = value_of(binding.value)
            _check_shape(binding.var, environment[binding.var])
    return environment


def _is_tensor(expression: relax.Expr) -> bool:
    if isinstance(expression, relax.Tuple):
        return all(_is_tensor(field) for field in expression.fields)
    return isinstance(getattr(expression, "ty", None), (relax.TensorType, relax.TupleType))


def _check_shape(variable: relax.Var, value: Value) -> None:
    if isinstance(value, np.ndarray):
        expected = tuple(int(extent) for extent in variable.ty.shape.values)
        assert value.shape == expected, f"{variable.name}: computed {value.shape}, its type says {expected}"


def _rounded(value: Value, precision: type) -> Value:
    if isinstance(value, tuple):
        return tuple(_rounded(field, precision) for field in value)
    value = np.asarray(value)
    return value.astype(precision) if value.dtype.kind == "f" else value


def _numbers(expressions: relax.Expr) -> list[int]:
    return [int(number) for number in expressions]


# -- binary operators


def _sign(call: relax.Call, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    zero = int(call.attrs["zero"])
    if zero == 0:
        return np.where(x > threshold, 1.0, np.where(x < threshold, -1.0, 0.0))
    return np.where(x > threshold if zero < 0 else x >= threshold, 1.0, -1.0)


def _ternary(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return np.where(x > 0.5, 1.0, np.where(x < -0.5, -1.0, 0.0))


def pack_words(positive: np.ndarray) -> np.ndarray:
    """bool (..., C) -> uint32 (..., ceil(C/32)), written with shifts."""
    channels = positive.shape[-1]
    words = np.zeros((*positive.shape[:-1], -(-channels // 32)), np.uint32)
    for k in range(channels):
        words[..., k // 32] |= positive[..., k].astype(np.uint32) << np.uint32(k % 32)
    return words


def unpack_words(words: np.ndarray, channels: int) -> np.ndarray:
    """uint32 (..., ceil(C/32)) -> +-1 (..., C); fails unless the words are just enough and tail bits are 0."""
    assert words.dtype == np.uint32 and words.shape[-1] == -(-channels // 32), (words.dtype, words.shape, channels)
    data = np.ascontiguousarray(words).astype("<u4").view(np.uint8)
    everything = unpack_bits(data, 8 * data.shape[-1])
    assert (everything[..., channels:] == -1).all(), "tail bits are set"
    return everything[..., :channels].astype(np.float64)


def _values(words: np.ndarray, channels: int, two_planes: bool) -> np.ndarray:
    if not two_planes:
        return unpack_words(words, channels)
    nonzero, positive = (unpack_words(plane, channels) > 0 for plane in np.moveaxis(words, min(2, words.ndim - 2), 0))
    assert not (positive & ~nonzero).any(), "a value is positive and zero"
    return np.where(nonzero, np.where(positive, 1.0, -1.0), 0.0)


def _sign_pack(call: relax.Call, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    values = _sign(call, x, threshold)
    return pack_words(values > 0) if int(call.attrs["zero"]) else _planes(values)


def _ternary_pack(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return _planes(_ternary(call, x))


def _planes(values: np.ndarray) -> np.ndarray:
    return np.stack([pack_words(values != 0), pack_words(values > 0)], axis=min(2, values.ndim - 1))


def _pack_many(call: relax.Call, x: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, ...]:
    if call.op.name == "bnn.sign_pack_many":
        return tuple(_sign_pack(call, x, vector) for vector in vectors)
    return tuple(_ternary_pack(call, x + vector) for vector in vectors)


def _shift_words(call: relax.Call, x: np.ndarray) -> np.ndarray:
    runs = [
        np.roll(x[..., first : first + count], (-rows, -columns), (1, 2))
        for first, count, rows, columns in ([int(n) for n in segment] for segment in call.attrs["segments"])
    ]
    return np.concatenate(runs, axis=3)


def _taps(
    x: np.ndarray,
    kernel: np.ndarray,
    strides: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> np.ndarray:
    """Products per tap, (taps, N, Ho, Wo, O), of an NHWC image and a (kh, kw, C/group, O) kernel."""
    top, left, bottom, right = pads
    kh, kw, group_channels, outputs = kernel.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    rows = (padded.shape[1] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    columns = (padded.shape[2] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    result = np.zeros((kh * kw, len(x), rows, columns, outputs))
    for tap in range(kh * kw):
        i, j = divmod(tap, kw)
        row_index = np.arange(rows) * strides[0] + i * dilation[0]
        column_index = np.arange(columns) * strides[1] + j * dilation[1]
        window = padded[:, row_index][:, :, column_index]
        for group in range(groups):
            own = slice(group * outputs // groups, (group + 1) * outputs // groups)
            read = slice(group * group_channels, (group + 1) * group_channels)
            result[tap, ..., own] = window[..., read] @ kernel[i, j, :, own]
    return result


def _binary_convolution(
    call: relax.Call, x: np.ndarray, weight: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    attributes = ConvolutionAttributes.of(call)
    if "packed" in call.op.name:
        x = _values(x, attributes.in_channels, bool(attributes.ternary))
    elif not attributes.channels_last:
        x = x.transpose(0, 2, 3, 1)
    assert np.isin(x, (-1, 0, 1)).all(), "a binary layer reads something that is not binary"
    (kh, kw), outputs = attributes.kernel_shape, len(weight)
    group_channels = attributes.in_channels // attributes.group
    signs = unpack_bits(weight, kh * kw * group_channels).reshape(outputs, kh, kw, group_channels)
    kernel = signs.transpose(1, 2, 3, 0).astype(np.float64)
    taps = _taps(x, kernel, attributes.strides, attributes.pads, (1, 1), attributes.group)
    if "tap_scaled" in call.op.name:
        result = sum(scale[:, tap].astype(np.float64) * product for tap, product in enumerate(taps)) + shift
    else:
        result = scale.astype(np.float64) * taps.sum(0) + shift
    return result if attributes.channels_last else result.transpose(0, 3, 1, 2)


def _binary_linear(
    call: relax.Call, x: np.ndarray, weight: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    features = int(call.attrs["in_features"])
    if "packed" in call.op.name:
        x = _values(x, features, bool(int(call.attrs["ternary"])))
    assert np.isin(x, (-1, 0, 1)).all(), "a binary layer reads something that is not binary"
    return scale.astype(np.float64) * (x @ unpack_bits(weight, features).T) + shift


# -- standard operators


def _conv2d(call: relax.Call, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    attributes = call.attrs
    last = str(attributes.data_layout) == "NHWC"
    x = x if last else x.transpose(0, 2, 3, 1)
    kernel = weight if str(attributes.kernel_layout) == "HWIO" else weight.transpose(2, 3, 1, 0)
    numbers = [_numbers(field) for field in (attributes.strides, attributes.padding, attributes.dilation)]
    result = _taps(x, kernel.astype(np.float64), *numbers, int(attributes.groups)).sum(0)
    return result if last else result.transpose(0, 3, 1, 2)


def _pool(maximum: bool) -> Callable[[relax.Call, np.ndarray], np.ndarray]:
    def pool(call: relax.Call, x: np.ndarray) -> np.ndarray:
        attributes = call.attrs
        assert not attributes.ceil_mode and _numbers(attributes.dilation) == [1, 1]
        last = str(attributes.layout) == "NHWC"
        x = x if last else x.transpose(0, 2, 3, 1)
        kh, kw = _numbers(attributes.pool_size)
        strides, (top, left, bottom, right) = _numbers(attributes.strides), _numbers(attributes.padding)
        outside = -np.inf if maximum else np.nan
        padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
        if not maximum and attributes.count_include_pad:
            padded = np.nan_to_num(padded, nan=0.0)
        views = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
        views = views[:, :: strides[0], :: strides[1]]
        result = views.max((-2, -1)) if maximum else np.nanmean(views, (-2, -1))
        return result if last else result.transpose(0, 3, 1, 2)

    return pool


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _prelu(call: relax.Call, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x * _along(slope, int(call.attrs.axis), x.ndim))


def _batch_norm(call: relax.Call, x: np.ndarray, *parameters: np.ndarray) -> tuple[np.ndarray, ...]:
    axis = int(call.attrs.axis)
    gamma, beta, mean, variance = (_along(p.astype(np.float64), axis, x.ndim) for p in parameters)
    y = (x - mean) / np.sqrt(variance + float(call.attrs.epsilon)) * gamma + beta
    return y, parameters[2], parameters[3]


def _group_norm(call: relax.Call, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    attributes = call.attrs
    axis, groups = int(attributes.channel_axis) % x.ndim, int(attributes.num_groups)
    moved = np.moveaxis(x.astype(np.float64), axis, 1)
    grouped = moved.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(-1, keepdims=True)
    normal = centred / np.sqrt(grouped.var(-1, keepdims=True) + float(attributes.epsilon))
    result = normal.reshape(moved.shape) * _along(gamma, 1, x.ndim) + _along(beta, 1, x.ndim)
    return np.moveaxis(result, 1, axis)


def _softmax(call: relax.Call, x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(int(call.attrs.axis), keepdims=True))
    return powers / powers.sum(int(call.attrs.axis), keepdims=True)


def _reduce(function: Callable) -> Callable[[relax.Call, np.ndarray], np.ndarray]:
    def reduce(call: relax.Call, x: np.ndarray) -> np.ndarray:
        axes = None if call.attrs.axis is None else tuple(_numbers(call.attrs.axis))
        return function(x, axis=axes, keepdims=bool(call.attrs.keepdims))

    return reduce


def _strided_slice(call: relax.Call, x: np.ndarray, *limits: relax.Expr) -> np.ndarray:
    index = [slice(None)] * x.ndim
    for axis, begin, end, step in zip(*(_numbers(limit.fields) for limit in limits), strict=True):
        index[axis] = slice(begin, end, step)
    return x[tuple(index)]


def _split(call: relax.Call, x: np.ndarray) -> tuple[np.ndarray, ...]:
    sections = call.attrs.indices_or_sections
    sections = _numbers(sections) if hasattr(sections, "__len__") else int(sections)
    return tuple(np.split(x, sections, int(call.attrs.axis)))


def _reshape(call: relax.Call, x: np.ndarray, *_shape: relax.Expr) -> np.ndarray:
    return x.reshape([int(extent) for extent in call.ty.shape.values])


def _permute_dims(call: relax.Call, x: np.ndarray) -> np.ndarray:
    return x.transpose(None if call.attrs.axes is None else _numbers(call.attrs.axes))


def _clip(call: relax.Call, x: np.ndarray, low: relax.Expr, high: relax.Expr) -> np.ndarray:
    return np.clip(x, float(low.value), float(high.value))


def _elementwise(function: Callable) -> Callable[..., np.ndarray]:
    return lambda call, *arrays: function(*arrays)


OPERATORS: dict[str, Callable[..., Value]] = {
    "bnn.sign": _sign,
    "bnn.ternary": _ternary,
    "bnn.sign_pack": _sign_pack,
    "bnn.ternary_pack": _ternary_pack,
    "bnn.sign_pack_many": _pack_many,
    "bnn.shift_words": _shift_words,
    "bnn.ternary_pack_many": _pack_many,
    "bnn.conv2d": _binary_convolution,
    "bnn.tap_scaled_conv2d": _binary_convolution,
    "bnn.packed_conv2d": _binary_convolution,
    "bnn.packed_tap_scaled_conv2d": _binary_convolution,
    "bnn.linear": _binary_linear,
    "bnn.packed_linear": _binary_linear,
    "relax.nn.conv2d": _conv2d,
    "relax.nn.max_pool2d": _pool(maximum=True),
    "relax.nn.avg_pool2d": _pool(maximum=False),
    "relax.nn.prelu": _prelu,
    "relax.nn.batch_norm": _batch_norm,
    "relax.nn.group_norm": _group_norm,
    "relax.nn.softmax": _softmax,
    "relax.nn.relu": _elementwise(lambda x: np.maximum(x, 0)),
    "relax.nn.gelu": _elementwise(lambda x: x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2),
    "relax.mean": _reduce(np.mean),
    "relax.sum": _reduce(np.sum),
    "relax.max": _reduce(np.max),
    "relax.min": _reduce(np.min),
    "relax.concat": lambda call, fields: np.concatenate(fields, int(call.attrs.axis)),
    "relax.split": _split,
    "relax.strided_slice": _strided_slice,
    "relax.take": lambda call, x, places: np.take(x, places, int(call.attrs.axis)),
    "relax.reshape": _reshape,
    "relax.expand_dims": _reshape,
    "relax.squeeze": _reshape,
    "relax.permute_dims": _permute_dims,
    "relax.broadcast_to": lambda call, x, _: np.broadcast_to(x, [int(e) for e in call.ty.shape.values]),
    "relax.clip": _clip,
    "relax.matmul": _elementwise(np.matmul),
    "relax.add": _elementwise(np.add),
    "relax.subtract": _elementwise(np.subtract),
    "relax.multiply": _elementwise(np.multiply),
    "relax.divide": _elementwise(np.divide),
    "relax.maximum": _elementwise(np.maximum),
    "relax.minimum": _elementwise(np.minimum),
    "relax.negative": _elementwise(np.negative),
    "relax.abs": _elementwise(np.abs),
    "relax.sin": _elementwise(np.sin),
    "relax.cos": _elementwise(np.cos),
    "relax.sqrt": _elementwise(np.sqrt),
    "relax.greater": _elementwise(np.greater),
    "relax.greater_equal": _elementwise(np.greater_equal),
    "relax.less": _elementwise(np.less),
    "relax.where": _elementwise(np.where),
}
