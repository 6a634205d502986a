"""Sums, means, extremes, pooling and what is made of them: one chain per result, from the first term to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from bnn_deploy.exact.elementwise import maximum, minimum
from bnn_deploy.exact.fma import Array, fma
from bnn_deploy.exact.functions import exponential
from bnn_deploy.exact.operation import NoRuleError, Operation
from bnn_deploy.exact.windows import windows

_LOWEST, _HIGHEST = np.finfo(np.float32).min, np.finfo(np.float32).max
_ONE = np.float32(1)

Combine = Callable[[Array, Array], Array]


def chain(terms: Iterable[Array], start: float, combine: Combine) -> Array:
    """``t = combine(t, term)`` from float32 ``start`` on."""
    total = None
    for term in terms:
        total = combine(np.full(term.shape, start, np.float32) if total is None else total, term)
    if total is None:
        raise NoRuleError("of nothing")
    return total


def terms_along(x: Array, axes: tuple[int, ...]) -> Array:
    """x as (terms, everything else): the axes row-major, the last one fastest."""
    moved = np.moveaxis(x, axes, range(len(axes)))
    return np.ascontiguousarray(moved).reshape(int(np.prod(moved.shape[: len(axes)])), *moved.shape[len(axes) :])


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum along axes, which are dropped."""
    return chain(terms_along(x, axes), 0.0, np.add)


def kept(x: Array, axes: tuple[int, ...]) -> Array:
    """x, whose ``axes`` were dropped, with them as axes of one element."""
    return np.expand_dims(x, axes)


def average(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean along axes, which are dropped."""
    mean_value: Array = total(x, axes) / np.float32(_terms(x, axes))
    return mean_value


def reduction(start: float, combine: Combine) -> Callable[[Operation, Array], Array]:
    """The rule of sum, prod, max or min."""

    def rule(operation: Operation, x: Array) -> Array:
        if x.dtype != np.float32:
            raise NoRuleError(f"of {x.dtype}")
        return chain(terms_along(x, operation.axes(x.ndim)), start, combine).reshape(operation.shape)

    return rule


def mean(operation: Operation, x: Array) -> Array:
    """The sum divided by the number of terms."""
    return average(x, operation.axes(x.ndim)).reshape(operation.shape)


def variance(operation: Operation, x: Array) -> Array:
    """The mean of the squared differences from the mean."""
    axes = operation.axes(x.ndim)
    centred = x - kept(average(x, axes), axes)
    return average(centred * centred, axes).reshape(operation.shape)


def softmax(operation: Operation, x: Array) -> Array:
    """``e / sum(e)`` of ``e = exp(x - max(x))``."""
    axes = (operation.axis(x.ndim),)
    largest = chain(terms_along(x, axes), float(_LOWEST), maximum)
    powers = exponential(x - kept(largest, axes))
    return powers / kept(total(powers, axes), axes)


def layer_norm(operation: Operation, x: Array, gamma: Array, beta: Array) -> Array:
    """``((x - mean) * rsqrt(variance + epsilon)) * gamma + beta``; the variance's squares are fused with their sum."""
    axes = operation.axes(x.ndim, "axes")
    if axes != tuple(range(x.ndim - len(axes), x.ndim)):
        raise NoRuleError("along axes that are not the last ones")
    count = np.float32(_terms(x, axes))
    centred = x - kept(total(x, axes) / count, axes)
    squares = chain(terms_along(centred, axes), 0.0, lambda t, d: fma(d, d, t)) / count
    normal = centred * kept(_ONE / np.sqrt(squares + operation.number("epsilon")), axes)
    return normal * gamma + beta


def group_norm(operation: Operation, x: Array, gamma: Array, beta: Array) -> Array:
    """Channels first: ``m`` and ``q``, means of x and of its squares, ``(x - m) * rsqrt(q - m * m + epsilon) * gamma + beta``."""
    groups = operation.integer("num_groups")
    _require_channels_first(operation, x)
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    normal = _normalised(operation, grouped, tuple(range(2, grouped.ndim))).reshape(x.shape)
    return _per_channel(normal, gamma, beta)


def instance_norm(operation: Operation, x: Array, gamma: Array, beta: Array) -> Array:
    """As ``group_norm`` with each channel a group of its own."""
    _require_channels_first(operation, x)
    return _per_channel(_normalised(operation, x, tuple(range(2, x.ndim))), gamma, beta)


def _require_channels_first(operation: Operation, x: Array) -> None:
    if operation.axis(x.ndim, "channel_axis") != 1 or operation.axes(x.ndim, "axes") != tuple(range(2, x.ndim)):
        raise NoRuleError("with its channels not first")


def _normalised(operation: Operation, x: Array, axes: tuple[int, ...]) -> Array:
    count = np.float32(_terms(x, axes))
    first = total(x, axes) / count
    second = chain(terms_along(x, axes), 0.0, lambda t, value: fma(value, value, t)) / count
    deviation = second - first * first + operation.number("epsilon")
    return (x - kept(first, axes)) * kept(_ONE / np.sqrt(deviation), axes)


def _per_channel(x: Array, gamma: Array, beta: Array) -> Array:
    shape = (-1, *[1] * (x.ndim - 2))
    return x * gamma.reshape(shape) + beta.reshape(shape)


def max_pool2d(operation: Operation, x: Array) -> Array:
    """The largest of each window, of those inside the image."""
    image, pads = _image(operation, x)
    lowest = float(_LOWEST)
    seen = windows(image, *_window(operation), pads, operation.integers("dilation"), lowest)
    return _result(operation, chain(seen, lowest, maximum))


def avg_pool2d(operation: Operation, x: Array) -> Array:
    """The sum of each window, row by row, divided by how many positions count."""
    image, pads = _image(operation, x)
    window, dilation = _window(operation), operation.integers("dilation")
    sums = chain(windows(image, *window, pads, dilation), 0.0, np.add)
    if operation.integer("count_include_pad"):
        if operation.integer("ceil_mode"):
            raise NoRuleError("with ceil_mode and padding that counts")
        return _result(operation, sums / np.float32(np.prod(window[0])))
    inside = np.ones((1, *image.shape[1:3], 1), np.float32)
    counts: Array = np.maximum(chain(windows(inside, *window, pads, dilation), 0.0, np.add), _ONE)
    return _result(operation, sums / counts)


def pool1d(rule: Callable[[Operation, Array], Array]) -> Callable[[Operation, Array], Array]:
    """The rule of an operator on rows, NCW, by that on images."""

    def rows(operation: Operation, x: Array) -> Array:
        if operation.attributes["layout"] != "NCW":
            raise NoRuleError("of another layout than NCW")
        before, after = operation.integers("padding")
        attributes: dict[str, object] = {**operation.attributes, "layout": "NCHW", "padding": (0, before, 0, after)}
        attributes |= {name: (1, *operation.integers(name)) for name in ("pool_size", "strides", "dilation")}
        batch, channels, width = operation.shape
        image = replace(operation, attributes=attributes, shape=(batch, channels, 1, width))
        return rule(image, x[:, :, None])[:, :, 0]

    return rows


def adaptive_avg_pool2d(operation: Operation, x: Array) -> Array:
    """The mean of each of (rows, columns) parts of the image."""
    image = x if _is_last(operation) else x.transpose(0, 2, 3, 1)
    shape = operation.shape if _is_last(operation) else tuple(operation.shape[axis] for axis in (0, 2, 3, 1))
    result = np.empty(shape, np.float32)
    for row in range(shape[1]):
        for column in range(shape[2]):
            (top, bottom), (left, right) = (
                (place * size // parts, -(-(place + 1) * size // parts))
                for place, size, parts in zip((row, column), image.shape[1:3], shape[1:3], strict=True)
            )
            result[:, row, column] = average(image[:, top:bottom, left:right], (1, 2))
    return _result(operation, result)


def _terms(x: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes]))


def _is_last(operation: Operation) -> bool:
    layout = str(operation.attributes["layout"])
    if layout not in ("NHWC", "NCHW"):
        raise NoRuleError(f"of layout {layout}")
    return layout == "NHWC"


def _image(operation: Operation, x: Array) -> tuple[Array, tuple[int, ...]]:
    """x as NHWC, and its padding; with ceil_mode a window more may fit, which reads padding."""
    image = x if _is_last(operation) else x.transpose(0, 2, 3, 1)
    pads = operation.integers("padding")
    pads = pads * 4 if len(pads) == 1 else pads * 2 if len(pads) == 2 else pads
    if operation.integer("ceil_mode"):
        height, width = operation.shape[1:3] if _is_last(operation) else operation.shape[2:]
        (kernel, strides), dilation = _window(operation), operation.integers("dilation")
        reached = [
            (outputs - 1) * step + (taps - 1) * apart + 1
            for outputs, step, taps, apart in zip((height, width), strides, kernel, dilation, strict=True)
        ]
        below, right = (
            max(after, end - size - before)
            for after, end, size, before in zip(pads[2:], reached, image.shape[1:3], pads[:2], strict=True)
        )
        pads = (*pads[:2], below, right)
    return image, pads


def _window(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return operation.integers("pool_size"), operation.integers("strides")


def _result(operation: Operation, image: Array) -> Array:
    return image if _is_last(operation) else image.transpose(0, 3, 1, 2)


RULES: dict[str, Callable[..., Array]] = {
    "relax.sum": reduction(0.0, np.add),
    "relax.prod": reduction(1.0, np.multiply),
    "relax.max": reduction(float(_LOWEST), maximum),
    "relax.min": reduction(float(_HIGHEST), minimum),
    "relax.mean": mean,
    "relax.variance": variance,
    "relax.nn.softmax": softmax,
    "relax.nn.layer_norm": layer_norm,
    "relax.nn.group_norm": group_norm,
    "relax.nn.instance_norm": instance_norm,
    "relax.nn.max_pool2d": max_pool2d,
    "relax.nn.avg_pool2d": avg_pool2d,
    "relax.nn.max_pool1d": pool1d(max_pool2d),
    "relax.nn.avg_pool1d": pool1d(avg_pool2d),
    "relax.nn.adaptive_avg_pool2d": adaptive_avg_pool2d,
}
