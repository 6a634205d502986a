"""Data movement, pooling and padding at random, written as exporters write them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from tests.frontend.random_graph import GraphBuilder, Known


def move(graph: GraphBuilder, x: Known) -> Known:
    """``x`` with its elements elsewhere, some of them left out or repeated; still binary if it was."""
    ways = [_roll, _transpose, _take, _split, _slice, _flat_and_back, _unsqueeze, _tile]
    if len(x.shape) == 4:
        ways += [_space_to_depth, _swap_rows]
    name, shape = graph.pick(ways)(graph, x)
    return replace(x, name=name, shape=shape)


def _axis(graph: GraphBuilder, x: Known) -> int:
    """An axis to cut; not that of an open batch."""
    return int(graph.random.integers(1 if graph.open_batch else 0, len(x.shape)))


def _cut(graph: GraphBuilder, source: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    return graph.op("Slice", source, *(graph.constant([number], np.int64) for number in (start, stop, axis, step)))


def _roll(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    axis = _axis(graph, x)
    shift = int(graph.random.integers(0, x.shape[axis]))
    parts = [
        _cut(graph, x.name, axis, x.shape[axis] - shift, 2**63 - 1),
        _cut(graph, x.name, axis, 0, -shift or 2**31 - 1),
    ]
    if shift == 0:
        parts = parts[1:]
    return graph.op("Concat", *parts, axis=axis - len(x.shape) if graph.chance(0.3) else axis), x.shape


def _slice(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    axis = _axis(graph, x)
    extent = x.shape[axis]
    if graph.chance(0.3):  # x.flip
        return _cut(graph, x.name, axis, -1, -(2**63) + 1, -1), x.shape
    step, start = int(graph.pick([1, 2])), int(graph.random.integers(0, 2))
    if extent <= start:
        return x.name, x.shape
    return _cut(graph, x.name, axis, start, 2**63 - 1, step), _at(x.shape, axis, -(-(extent - start) // step))


def _at(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    return (*shape[:axis], extent, *shape[axis + 1 :])


def _transpose(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    order = [0, *(1 + graph.random.permutation(len(x.shape) - 1)).tolist()]
    if not graph.open_batch and graph.chance(0.2):
        order = graph.random.permutation(len(x.shape)).tolist()
    return graph.op("Transpose", x.name, perm=order), tuple(x.shape[axis] for axis in order)


def _take(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    axis = _axis(graph, x)
    places = graph.random.integers(0, x.shape[axis], x.shape[axis])
    return graph.op("Gather", x.name, graph.constant(places, np.int64), axis=axis), x.shape


def _split(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    axis = _axis(graph, x)
    if x.shape[axis] < 2:
        return x.name, x.shape
    first = int(graph.random.integers(1, x.shape[axis]))
    sizes = [first, x.shape[axis] - first]
    if graph.opset >= 13:
        one, other = graph.op("Split", x.name, graph.constant(sizes, np.int64), outputs=2, axis=axis)
    else:
        one, other = graph.op("Split", x.name, outputs=2, axis=axis, split=sizes)
    if graph.chance(0.3):
        return one, _at(x.shape, axis, first)
    return graph.op("Concat", other, one, axis=axis), x.shape


def _flat_and_back(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    """Reshape or Flatten, and mostly back, with targets that are constant or computed from shapes."""
    if graph.chance(0.3):
        return graph.op("Flatten", x.name), (x.shape[0], int(np.prod(x.shape[1:])))
    if graph.chance(0.5):
        first = graph.op("Gather", graph.op("Shape", x.name), graph.constant(0, np.int64), axis=0)
        first = graph.axes("Unsqueeze", first, [0])
        target = graph.op("Concat", first, graph.constant([-1], np.int64), axis=0)
    else:
        target = graph.constant([0, -1], np.int64)
    name, count = graph.op("Reshape", x.name, target), int(np.prod(x.shape[1:]))
    if graph.chance(0.3):
        return name, (x.shape[0], count)
    inner = x.shape[1:] if graph.chance(0.5) else (2, count // 2) if count % 2 == 0 else (count, 1)
    return graph.op("Reshape", name, graph.constant([-1, *inner], np.int64)), (x.shape[0], *inner)


def _unsqueeze(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    if 1 in x.shape[1:] and len(x.shape) > 2:
        axis = 1 + x.shape[1:].index(1)
        return graph.axes("Squeeze", x.name, [axis]), (*x.shape[:axis], *x.shape[axis + 1 :])
    if len(x.shape) == 4:
        return x.name, x.shape
    axis = int(graph.random.integers(1, len(x.shape) + 1))
    return graph.axes("Unsqueeze", x.name, [axis]), (*x.shape[:axis], 1, *x.shape[axis:])


def _tile(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    if np.prod(x.shape) > 500:
        return x.name, x.shape
    axis = int(graph.random.integers(1, len(x.shape)))
    return graph.op("Tile", x.name, graph.constant(_at((1,) * len(x.shape), axis, 2), np.int64)), _at(
        x.shape, axis, 2 * x.shape[axis]
    )


def _space_to_depth(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    batch, channels, height, width = x.shape
    if height % 2 == 0 and width % 2 == 0:
        return graph.op("SpaceToDepth", x.name, blocksize=2), (batch, 4 * channels, height // 2, width // 2)
    if channels % 4 == 0:
        return graph.op("DepthToSpace", x.name, blocksize=2, mode="CRD"), (batch, channels // 4, 2 * height, 2 * width)
    return x.name, x.shape


def _swap_rows(graph: GraphBuilder, x: Known) -> tuple[str, tuple[int, ...]]:
    """(N, C, H, W) to (N, H, W, C) and back, as in networks that normalise the channels."""
    moved = graph.op("Transpose", x.name, perm=[0, 2, 3, 1])
    return graph.op("Transpose", moved, perm=[0, 3, 1, 2]), x.shape


def _known_after(x: Known, kind: str, levels: tuple[float, float | None, float] | None) -> dict[str, object]:
    """Levels after a MaxPool or Pad, as long as the rules are to see through it."""
    passed = x.passed + kind
    # Pooling, then padding, then pooling is what the rules look behind; three values only around 0.
    seen = levels is not None and re.fullmatch("M*P*M*", passed) and (levels[1] is None or levels[0] + levels[2] == 0)
    return {"levels": levels if seen else None, "passed": passed}


def max_pool(graph: GraphBuilder, x: Known) -> Known | None:
    """MaxPool with all attributes."""
    spatial = len(x.shape) - 2
    if spatial not in (1, 2):
        return None
    kernel = [int(graph.pick([1, 2, 2, 3])) for _ in range(spatial)]
    strides = [int(graph.pick([1, 2, 3])) for _ in range(spatial)]
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides}
    pads, extents = [0] * (2 * spatial), []
    ceil = graph.chance(0.2)
    mode = "SAME_UPPER" if graph.chance(0.15) and all(s <= k for s, k in zip(strides, kernel, strict=True)) else ""
    if mode:
        attributes["auto_pad"] = mode
    else:
        if graph.chance(0.4):
            pads = [int(graph.random.integers(0, extent)) for extent in kernel] * 2
        attributes["pads"] = pads
        if ceil:
            attributes["ceil_mode"] = 1
    for axis, extent in enumerate(x.shape[2:]):
        room = extent + pads[axis] + pads[spatial + axis] - kernel[axis]
        if room < 0:
            return None
        if mode:
            extents.append(-(-extent // strides[axis]))
        elif ceil:
            size = -(-room // strides[axis]) + 1
            # A window must not start in the padding behind the image.
            extents.append(size - ((size - 1) * strides[axis] >= extent + pads[axis]))
        else:
            extents.append(room // strides[axis] + 1)
    plain = not ceil or (not any(pads) and all(s <= k for s, k in zip(strides, kernel, strict=True)))
    if ceil and not plain:  # Runtimes differ about windows that hold nothing of the image.
        return None
    name = graph.op("MaxPool", x.name, **attributes)
    known = _known_after(x, "M", x.levels)
    return replace(x, name=name, shape=(*x.shape[:2], *extents), opaque=False, **known)


def pad(graph: GraphBuilder, x: Known) -> Known | None:
    """Pad with a constant, by reflection or by repetition, on any axes."""
    rank = len(x.shape)
    amounts = graph.random.integers(0, 2, (2, rank))
    if rank > 2 and graph.chance(0.7):
        amounts[:, :2] = 0
    amounts[:, 0] = 0
    mode = str(graph.pick(["constant"] * 3 + ["reflect", "edge"]))
    if mode == "reflect" and any(amount and extent < 2 for amount, extent in zip(amounts.max(0), x.shape, strict=True)):
        return None
    filling = float(graph.pick([0.0, 0.0, -1.0, 1.0, 0.5])) if mode == "constant" else 0.0
    levels = x.levels
    if mode == "constant" and levels is not None:
        if filling not in levels and not (levels[1] is None and filling == levels[0] + levels[2] == 0):
            levels = None
        elif filling == 0 and 0 not in levels:
            levels = (levels[0], 0.0, levels[2])
    inputs = [x.name, graph.constant(amounts.reshape(-1), np.int64)]
    if mode == "constant" and (filling or graph.chance(0.5)):
        inputs.append(graph.constant(filling))
    name = graph.op("Pad", *inputs, mode=mode)
    known = _known_after(x, "P", levels)
    bound, grain = max(x.bound, abs(filling)), min(x.grain, 0.5)
    shape = tuple((np.array(x.shape) + amounts.sum(axis=0)).tolist())
    return replace(x, name=name, shape=shape, bound=bound, grain=grain, opaque=False, **known)
