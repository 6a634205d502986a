"""Real-valued convolutions and matrix products: chains of fused multiply-adds from +0, in the order of the reduction's axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnn_deploy.exact.fma import Array, multiply_add_chain
from bnn_deploy.exact.operation import NoRuleError, Operation
from bnn_deploy.exact.windows import window_count, windows

# Positions whose windows are laid out at a time: bounds the memory of a layer, whatever its image.
_WINDOW_ELEMENTS = 1 << 22


def conv2d(operation: Operation, x: Array, weight: Array) -> Array:
    """NHWC: over (kernel row, kernel column, channel); NCHW: over (channel, kernel row, kernel column)."""
    layout, kernel_layout = (str(operation.attributes[name]) for name in ("data_layout", "kernel_layout"))
    if layout not in ("NHWC", "NCHW") or sorted(kernel_layout) != sorted("HWIO"):
        raise NoRuleError(f"of layouts {layout} and {kernel_layout}")
    last = layout == "NHWC"
    image = x if last else x.transpose(0, 2, 3, 1)
    kernel = weight.transpose([kernel_layout.index(axis) for axis in "HWIO"])
    pads, strides, dilation = (operation.integers(name) for name in ("padding", "strides", "dilation"))
    sums = _convolution(image, kernel, operation.integer("groups"), pads, strides, dilation, last)
    return sums if last else np.transpose(sums, (0, 3, 1, 2))


def conv1d(operation: Operation, x: Array, weight: Array) -> Array:
    """NCW: over (channel, kernel column)."""
    if (operation.attributes["data_layout"], operation.attributes["kernel_layout"]) != ("NCW", "OIW"):
        raise NoRuleError("of another layout than NCW")
    (left, right), (step,), (apart,) = (operation.integers(name) for name in ("padding", "strides", "dilation"))
    image, kernel = x.transpose(0, 2, 1)[:, None], weight.transpose(2, 1, 0)[None]
    pads = (0, left, 0, right)
    sums = _convolution(image, kernel, operation.integer("groups"), pads, (1, step), (1, apart), channel_last=False)
    return np.transpose(sums[:, 0], (0, 2, 1))


def conv2d_transpose(operation: Operation, x: Array, weight: Array) -> Array:
    """NCHW by IOHW: a convolution of x with zeros between its pixels, over (channel, kernel row, kernel column)."""
    layouts = (operation.attributes["data_layout"], operation.attributes["kernel_layout"])
    dilation, strides, pads = (operation.integers(name) for name in ("dilation", "strides", "padding"))
    own_outputs, rows, columns = weight.shape[1:]
    ends = (rows - 1, columns - 1, rows - 1, columns - 1)
    extra = (0, 0, *operation.integers("output_padding"))
    around = [end - before + more for end, before, more in zip(ends, pads, extra, strict=True)]
    if layouts != ("NCHW", "IOHW") or dilation != (1, 1) or min(around) < 0:
        raise NoRuleError("of this layout, dilation or padding")
    batch, channels, height, width = x.shape
    apart = np.zeros((batch, (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1, channels), np.float32)
    apart[:, :: strides[0], :: strides[1]] = x.transpose(0, 2, 3, 1)
    groups = operation.integer("groups")
    turned = weight[:, :, ::-1, ::-1].reshape(groups, channels // groups, own_outputs, rows, columns)
    kernel = turned.transpose(3, 4, 1, 0, 2).reshape(rows, columns, channels // groups, groups * own_outputs)
    sums = _convolution(apart, kernel, groups, around, (1, 1), (1, 1), channel_last=False)
    return np.transpose(sums, (0, 3, 1, 2))


def _convolution(
    image: Array,
    kernel: Array,
    groups: int,
    pads: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    channel_last: bool,
) -> Array:
    """NHWC by HWIO; ``channel_last``: the channel is the fastest of a chain's axes, not the slowest."""
    rows, columns, own, outputs = kernel.shape
    terms = kernel.reshape(rows * columns, own, groups, outputs // groups)
    if not channel_last:
        terms = terms.transpose(1, 0, 2, 3)
    terms = np.ascontiguousarray(terms.reshape(rows * columns * own, groups, outputs // groups))
    size = (image.shape[1] + pads[0] + pads[2], image.shape[2] + pads[1] + pads[3])
    shape = window_count(size, (rows, columns), strides, dilation)
    result = np.empty((len(image), *shape, outputs), np.float32)
    seen = list(windows(image, (rows, columns), strides, pads, dilation))
    step = max(1, _WINDOW_ELEMENTS // (terms.shape[0] * groups * shape[1]))
    for n in range(len(image)):
        for first in range(0, shape[0], step):
            taps = np.stack([window[n, first : first + step] for window in seen])
            count, height, width, _ = taps.shape
            # (taps, positions, groups, channels) -> (terms, groups, positions)
            order = (0, 3, 2, 1) if channel_last else (3, 0, 2, 1)
            by_term = taps.reshape(count, height * width, groups, own).transpose(order)
            elements = np.ascontiguousarray(by_term).reshape(count * own, groups, height * width)
            sums = multiply_add_chain(elements, terms)
            result[n, first : first + step] = sums.reshape(outputs, height, width).transpose(1, 2, 0)
    return result


def matmul(operation: Operation, a: Array, b: Array) -> Array:
    """``t = fma(a[i, k], b[k, j], t)`` over k, for every matrix of the leading axes."""
    left = a[None] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    leading = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, leading + left.shape[-2:]).reshape(-1, *left.shape[-2:])
    right = np.broadcast_to(right, leading + right.shape[-2:]).reshape(-1, *right.shape[-2:])
    # (terms, matrices, rows) and (terms, matrices, columns) -> (matrices, columns, rows)
    sums = multiply_add_chain(left.transpose(2, 0, 1), right.transpose(1, 0, 2))
    return np.reshape(np.transpose(sums, (0, 2, 1)), operation.shape)
