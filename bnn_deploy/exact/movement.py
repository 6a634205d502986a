"""Operators that only move elements, floats and words alike."""

from __future__ import annotations

import numpy as np

from bnn_deploy.exact.operation import NoRuleError, Operation


def reshape(operation: Operation, x: np.ndarray, *_: object) -> np.ndarray:
    """reshape, expand_dims, squeeze, flatten: the result's shape says it all."""
    return x.reshape(operation.shape)


def broadcast_to(operation: Operation, x: np.ndarray, *_: object) -> np.ndarray:
    """Repeated along axes of one element."""
    return np.broadcast_to(x, operation.shape)


def permute_dims(operation: Operation, x: np.ndarray) -> np.ndarray:
    """Axes in another order; by default the opposite one."""
    return np.transpose(x, None if operation.attributes["axes"] is None else operation.integers("axes"))


def concat(operation: Operation, fields: tuple[np.ndarray, ...]) -> np.ndarray:
    """One tensor after the other along an axis."""
    axis = operation.attributes["axis"]
    return np.concatenate(fields, axis=0 if axis is None else operation.axis(fields[0].ndim))


def split(operation: Operation, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Equal parts, or parts that begin at given places."""
    places = operation.attributes["indices_or_sections"]
    sections = operation.integers("indices_or_sections") if isinstance(places, tuple) else int(places)
    return tuple(np.split(x, sections, axis=operation.axis(x.ndim)))


def strided_slice(operation: Operation, x: np.ndarray, axes: tuple[int, ...], *limits: tuple[int, ...]) -> np.ndarray:
    """Begin, end and step along some axes; negative begins and ends count from the end."""
    begins, ends = limits[:2]
    steps = limits[2] if len(limits) > 2 and limits[2] is not None else (1,) * len(axes)
    index: list[slice] = [slice(None)] * x.ndim
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        # A step backwards to before the first element has an end that numpy would count from the end.
        before_first = step < 0 and end < -x.shape[axis]
        index[axis] = slice(begin, None if before_first else end, step)
    result = x[tuple(index)]
    if result.shape != operation.shape:
        raise NoRuleError(f"from {begins} to {ends} by {steps}")
    return result


def take(operation: Operation, x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Elements at given places along an axis."""
    axis = operation.attributes["axis"]
    if places.size and (places.min() < 0 or places.max() >= x.shape[operation.axis(x.ndim) if axis is not None else 0]):
        raise NoRuleError("of places outside the tensor")
    return np.take(x, places, axis=None if axis is None else operation.axis(x.ndim))


def tile(operation: Operation, x: np.ndarray) -> np.ndarray:
    """The whole tensor several times."""
    return np.tile(x, operation.integers("repeats"))


def pad(operation: Operation, x: np.ndarray, *value: object) -> np.ndarray:
    """A constant, or mirrored or repeated elements, around a tensor."""
    width = operation.integers("pad_width")
    pairs = list(zip(width[0::2], width[1::2], strict=True))
    mode = str(operation.attributes["pad_mode"])
    if mode == "constant":
        number = value[0] if value else operation.attributes["pad_value"]
        return np.pad(x, pairs, constant_values=x.dtype.type(number))
    if mode not in ("reflect", "replicate"):
        raise NoRuleError(f"of mode '{mode}'")
    return np.pad(x, pairs, mode="reflect" if mode == "reflect" else "edge")
