"""Write a Resize with known sizes out as what it does along each axis: pick elements, or add up a few with fixed weights.

Before::

    y = Resize(x: (N, 8, 4, 4), scales [1, 1, 2, 2], mode="linear")
After::

    r = Gather(x, [0, 0, 0, 1, …], axis=2) · [[1], [.75], …] + Gather(x, [0, 1, 1, 2, …], axis=2) · [[0], [.25], …]
    y = the same along axis 3

Nearest neighbours only move data, so signs stay signs. Positions and weights follow the definition of Resize in the ONNX
specification, computed here in float32 as onnxruntime does: positions that fall between two elements must round alike.
Where: after shape inference.
Not handled: sizes that are not known, antialias, tf_crop_and_resize, keep_aspect_ratio_policy (``dialect.conversions`` refuses).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    new_constant,
    optional_input,
    producer_of,
    replace_value,
    required_input,
    static_shape,
)
from bnn_deploy.passes.onnx.node_writer import NodeWriter

_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
# The tallest that an untrusted file may ask for, with room for any image.
_LARGEST = 1 << 16
# In place of a size: the axis stays as it is.
_UNCHANGED = -1

# One term of each element of a result: which elements are picked, and their weights (float32), or None for all of it.
Tap = tuple[np.ndarray, np.ndarray | None]


def expand_resize(graph: ir.Graph, node: ir.Node) -> None:
    """Replace ``node`` if it is such a Resize."""
    if not is_standard(node, "Resize") or not _is_plain(node):
        return
    plan = _plan(node)
    if plan is None:
        return
    image = required_input(node)
    writer, value = NodeWriter(graph, node), image
    for axis, (size, scale, result) in plan.items():
        positions = _positions(node, size, result, scale)
        taps = _nearest(node, positions, size) if _mode(node) == "nearest" else _weighted(node, positions, size)
        value = _axis_resized(writer, value, axis, taps)
    if value is not image:
        replace_value(node.outputs[0], value)
        graph.remove(node, safe=True)


def _mode(node: ir.Node) -> str:
    return node.attributes.get_string("mode", "nearest")


def _is_plain(node: ir.Node) -> bool:
    texts = node.attributes
    return (
        _mode(node) in ("nearest", "linear", "cubic")
        and texts.get_string("coordinate_transformation_mode", "half_pixel") in _COORDINATES
        and texts.get_string("nearest_mode", "round_prefer_floor") in _NEAREST
        and texts.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
        and texts.get_int("antialias", 0) == 0
    )


def _plan(node: ir.Node) -> dict[int, tuple[int, np.float32, int]] | None:
    """For each axis that changes: its extent, the scale, and the extent of the result; None if one is not known."""
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    scales, sizes = (constant_of(optional_input(node, index)) for index in (2, 3))
    if sizes is None:
        sizes = _sizes_beside_the_batch(node)
    chosen = node.attributes.get("axes")
    axes = range(len(shape)) if chosen is None else [axis % len(shape) for axis in chosen.as_ints()]
    given = sizes if sizes is not None and sizes.size else scales
    if given is None or given.size != len(axes):
        return None
    plan = {}
    for axis, number in zip(axes, given.reshape(-1), strict=True):
        size = shape[axis]
        if (given is scales and number == 1) or (given is sizes and number in (size, _UNCHANGED)):
            continue
        if size is None or size < 1 or not 0 < number < _LARGEST:
            return None
        # As onnxruntime has it: a result of given size has the scale result / size.
        scale = np.float32(number) if given is scales else np.float32(number) / np.float32(size)
        result = int(np.floor(np.float32(size) * scale)) if given is scales else int(number)
        if not 1 <= result < _LARGEST:
            return None
        plan[axis] = (size, scale, result)
    return plan


def _sizes_beside_the_batch(node: ir.Node) -> np.ndarray | None:
    """The known sizes of a Concat of them after the image's own batch; None of any other."""
    concat, made = producer_of(optional_input(node, 3)), static_shape(node.outputs[0])
    if not is_standard(concat, "Concat") or made is None or None in made[1:] or "axes" in node.attributes:
        return None
    first = producer_of(concat.inputs[0])
    if is_standard(first, "Slice", "Gather"):
        start = constant_of(first.inputs[1])
        first = producer_of(first.inputs[0]) if start is not None and start.reshape(-1)[:1] == 0 else None
    if not is_standard(first, "Shape") or first.inputs[0] is not node.inputs[0]:
        return None
    if first.attributes.get_int("start", 0) != 0:
        return None
    return np.asarray([_UNCHANGED, *made[1:]], np.int64)


def _positions(node: ir.Node, size: int, result: int, scale: np.float32) -> np.ndarray:
    """Where each element of the result lies among the ``size`` elements, as float32."""
    index = np.arange(result, dtype=np.float32)
    half = np.float32(0.5)
    how = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if how == "asymmetric":
        return index / scale
    if how == "align_corners":
        return index * np.float32(size - 1) / np.float32(result - 1) if result > 1 else np.zeros(1, np.float32)
    if how == "pytorch_half_pixel" and result == 1:
        return np.zeros(1, np.float32)
    offset = np.float32(0)
    if how == "half_pixel_symmetric":
        adjustment = np.float32(result) / (scale * np.float32(size))
        center = np.float32(size) / np.float32(2)
        offset = center * (np.float32(1) - adjustment)
    return np.asarray(offset + (index + half) / scale - half)


def _nearest(node: ir.Node, positions: np.ndarray, size: int) -> list[Tap]:
    how = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    rounded = {
        "round_prefer_floor": np.ceil(positions - np.float32(0.5)),
        "round_prefer_ceil": np.floor(positions + np.float32(0.5)),
        "floor": np.floor(positions),
        "ceil": np.ceil(positions),
    }[how]
    return [(np.clip(rounded, 0, size - 1).astype(np.int64), None)]


def _weighted(node: ir.Node, positions: np.ndarray, size: int) -> list[Tap]:
    """For each tap: which elements, and their weights."""
    linear = _mode(node) == "linear"
    if linear:
        positions = np.clip(positions, np.float32(0), np.float32(size - 1))
    first = np.floor(positions)
    fraction = positions - first
    offsets = (0, 1) if linear else (-1, 0, 1, 2)
    weights = (
        [1 - fraction, fraction] if linear else _cubic(fraction, node.attributes.get_float("cubic_coeff_a", -0.75))
    )
    places = [first.astype(np.int64) + offset for offset in offsets]
    if not linear and node.attributes.get_int("exclude_outside", 0) != 0:
        weights = [np.where((place >= 0) & (place < size), w, 0) for place, w in zip(places, weights, strict=True)]
        weights = [w / sum(weights) for w in weights]
    return [(np.clip(place, 0, size - 1), np.asarray(w, np.float32)) for place, w in zip(places, weights, strict=True)]


def _cubic(fraction: np.ndarray, a: float) -> list[np.ndarray]:
    """Keys' cubic convolution weights of the elements at -1, 0, 1 and 2."""

    def near(x: np.ndarray) -> np.ndarray:
        return np.asarray(((a + 2) * x - (a + 3)) * x * x + 1)

    def far(x: np.ndarray) -> np.ndarray:
        return np.asarray(((a * x - 5 * a) * x + 8 * a) * x - 4 * a)

    return [far(fraction + 1), near(fraction), near(1 - fraction), far(2 - fraction)]


def _axis_resized(writer: NodeWriter, value: ir.Value, axis: int, taps: list[Tap]) -> ir.Value:
    rank = len(required_input(writer.old).shape or ())
    name = f"{writer.old.outputs[0].name}_axis_{axis}"

    def emit(operator: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None) -> ir.Value:
        return writer.write(operator, inputs, attributes, name=writer.old.name)

    terms: list[ir.Value] = []
    for number, (places, weights) in enumerate(taps):
        indices = new_constant(writer.graph, f"{name}_places_{number}", places)
        term = emit("Gather", [value, indices], {"axis": axis})
        if weights is not None:
            vector = weights.reshape((-1,) + (1,) * (rank - 1 - axis))
            term = emit("Mul", [term, new_constant(writer.graph, f"{name}_weights_{number}", vector)])
        terms.append(term if not terms else emit("Add", [terms[-1], term]))
    return terms[-1]
