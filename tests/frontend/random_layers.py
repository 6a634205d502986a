"""Layers of every standard kind, with weights of every kind, written at random."""

from __future__ import annotations

import numpy as np

from tests.frontend.random_graph import GraphBuilder, Known


def weights(graph: GraphBuilder, shape: tuple[int, ...], axis: int) -> tuple[str, np.ndarray, str]:
    """(name, numbers, kind): "binary" if ±a or 0 for each index of ``axis``, the output channels; "zeros" if some are 0; or "real".

    All are small multiples of an eighth.
    """
    random = graph.random
    layout = tuple(extent if place == axis else 1 for place, extent in enumerate(shape))
    scale = random.choice([0.25, 0.5, 1.0, 1.5, 2.0], layout)
    if graph.chance(0.3):
        scale = np.full(layout, float(graph.pick([1.0, 0.5])))
    signs = random.choice([-1.0, 1.0], shape)
    way = graph.pick(["exact"] * 4 + ["sign", "where", "ste", "negative", "pruned", "zeros", "two bits", "real"])
    if way == "real":
        numbers = random.integers(-8, 9, shape) / 8
        return graph.constant(numbers), numbers, "real"
    if way == "two bits":
        numbers = scale * signs * random.choice([1.0, 3.0], shape)
        return graph.constant(numbers), numbers, "real"
    if way == "zeros":
        numbers = scale * signs * (random.random(shape) < 0.8)
        rows = np.moveaxis(numbers, axis, 0).reshape(shape[axis], -1) == 0
        return graph.constant(numbers), numbers, "zeros" if np.any(rows.any(axis=1) & ~rows.all(axis=1)) else "binary"
    if way == "pruned":
        numbers = scale * signs * (random.random(layout) < 0.7)
        return graph.constant(numbers), numbers, "binary"
    if way == "exact":
        return graph.constant(scale * signs), scale * signs, "binary"
    # Computed in the graph from real weights.
    real = graph.constant(np.abs(random.integers(1, 9, shape)) / 4 * signs)
    if way == "negative":
        return graph.op("Mul", graph.op("Sign", real), graph.constant(-scale)), -scale * signs, "binary"
    if way == "where":
        positive = graph.op("Greater", real, graph.constant(0.0))
        return graph.op("Where", positive, graph.constant(scale), graph.constant(-scale)), scale * signs, "binary"
    binary = graph.op("Mul", graph.constant(scale), graph.op("Sign", real))
    if way == "ste":
        clipped = graph.op("Clip", real, graph.constant(-1.0), graph.constant(1.0))
        binary = graph.op("Add", graph.op("Sub", binary, clipped), clipped)
    return binary, scale * signs, "binary"


def _grown(x: Known, numbers: np.ndarray, fan_in: int, more: float = 0.0) -> tuple[float, float] | None:
    """(bound, grain) of a sum of ``fan_in`` products, None where it would not be exact."""
    bound = x.bound * float(np.abs(numbers).max(initial=0)) * fan_in + more
    grain = min(x.grain / 8, 1 / 8)
    return (bound, grain) if bound / grain <= 2.0**21 else None


def _binary(x: Known, padded: bool) -> bool:
    """Whether a layer that reads ``x`` and has ±a weights must be found to be binary."""
    if x.levels is None:
        return False
    low, middle, high = x.levels
    if low + high == 0 or not padded:
        return True
    return middle is None and 0.0 in (low, high)


def _finish(graph: GraphBuilder, x: Known, label: str, kind: str, padded: bool) -> None:
    if _binary(x, padded):
        {"binary": graph.binary_layers, "zeros": graph.zero_layers, "real": set()}[kind].add(label)


def convolution(graph: GraphBuilder, x: Known) -> Known | None:
    """Conv of an image or a sequence."""
    spatial = len(x.shape) - 2
    if spatial < 1:
        return None
    channels = x.shape[1]
    group = int(graph.pick([1, 1, 1, 2, channels]))
    if channels % group:
        group = 1
    outputs = group * int(graph.pick([1, 2, 3] if group > 1 else [2, 3, 4, 5, 8]))
    kernel = [int(graph.pick([1, 2, 3, 3])) for _ in range(spatial)]
    shape = (outputs, channels // group, *kernel)
    name, numbers, kind = weights(graph, shape, 0)
    bias = graph.random.integers(-4, 5, outputs) / 4 if graph.chance(0.4) else None
    size = _grown(x, numbers, int(np.prod(shape[1:])), 1.0)
    if size is None:
        return None
    strides = [int(graph.pick([1, 1, 2, 3])) for _ in range(spatial)]
    dilations = [int(graph.pick([1] * 9 + [2])) for _ in range(spatial)]
    pads = [int(graph.pick([0, 0, 1, 2])) for _ in range(2 * spatial)] if graph.chance(0.6) else [0] * 2 * spatial
    attributes: dict[str, object] = {"group": group}
    mode = str(graph.pick(["NOTSET"] * 5 + ["SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "NOTSET":
        attributes["pads"] = pads
    else:
        attributes["auto_pad"], dilations = mode, [1] * spatial
        pads = [0] * 2 * spatial
    if graph.chance(0.8):
        attributes["kernel_shape"] = kernel
    attributes.update(strides=strides, dilations=dilations)
    result = []
    for axis, extent in enumerate(x.shape[2:]):
        if mode.startswith("SAME"):
            result.append(-(-extent // strides[axis]))
            continue
        room = extent + pads[axis] + pads[spatial + axis] - dilations[axis] * (kernel[axis] - 1) - 1
        if room < 0:
            return None
        result.append(room // strides[axis] + 1)
    inputs = [x.name, name] if bias is None else [x.name, name, graph.constant(bias)]
    label = graph.name("layer")
    y = graph.op("Conv", *inputs, label=label, **attributes)
    padded = any(pads) or mode.startswith("SAME")
    # With one input in a group, some scale for each kernel position is true of any weights; that is not demanded here.
    dilated = any(step > 1 and extent > 1 for step, extent in zip(dilations, kernel, strict=True))
    # Where a kernel position is all 0 or not at all, each has a scale of its own, and nothing is wrong with the zeros.
    unsure = dilated or (kind == "zeros" and np.prod(kernel) > 1)
    _finish(graph, x, label, "real" if unsure else kind, padded)
    return graph.derived(y, x, shape=(x.shape[0], outputs, *result), bound=size[0], grain=size[1], opaque=True)


def transposed_convolution(graph: GraphBuilder, x: Known) -> Known | None:
    """ConvTranspose, which stays real-valued."""
    if len(x.shape) != 4 or x.shape[2] * x.shape[3] > 64:
        return None
    numbers = graph.random.choice([-0.5, 0.5], (x.shape[1], 2, 2, 2))
    size = _grown(x, numbers, x.shape[1])
    if size is None:
        return None
    y = graph.op("ConvTranspose", x.name, graph.constant(numbers), strides=[2, 2])
    shape = (x.shape[0], 2, 2 * x.shape[2], 2 * x.shape[3])
    return graph.derived(y, x, shape=shape, bound=size[0], grain=size[1], opaque=True)


def gemm(graph: GraphBuilder, x: Known) -> Known | None:
    """Gemm with every attribute, the weights on either side."""
    if len(x.shape) != 2:
        return None
    left = graph.chance(0.3) and not graph.open_batch
    trans_x, trans_w = graph.chance(0.2) and not graph.open_batch, graph.chance(0.6)
    rows, depth = x.shape[::-1] if trans_x != left else x.shape
    outputs = int(graph.pick([1, 3, 4, 8]))
    # Right: op(x) @ op(w), op(w) is (depth, outputs). Left: op(w) @ op(x), op(w) is (outputs, depth).
    flat = (outputs, depth) if left else (depth, outputs)
    shape, axis = (flat[::-1], 1 if left else 0) if trans_w else (flat, 0 if left else 1)
    name, numbers, kind = weights(graph, shape, axis)
    alpha, beta = float(graph.pick([1.0, 1.0, 0.5, -2.0])), float(graph.pick([1.0, 1.0, 0.5, 0.0, -1.0]))
    size = _grown(x, numbers * alpha, depth, 8.0)
    if size is None:
        return None
    result = (outputs, rows) if left else (rows, outputs)
    free = 1 if graph.open_batch else result[0]
    layouts = [(), (1,), (result[1],), (1, result[1]), (free, 1), (free, result[1])]
    addend = []
    if graph.chance(0.7):
        c = graph.constant(graph.random.integers(-4, 5, graph.pick(layouts)) / 2)
        addend = [c]
    attributes = {"alpha": alpha, "beta": beta, "transA": int(trans_w if left else trans_x)}
    attributes["transB"] = int(trans_x if left else trans_w)
    label = graph.name("layer")
    y = graph.op("Gemm", *((name, x.name) if left else (x.name, name)), *addend, label=label, **attributes)
    _finish(graph, x, label, kind, False)
    return graph.derived(y, x, shape=result, bound=size[0], grain=min(size[1], x.grain / 16), opaque=True)


def product(graph: GraphBuilder, x: Known) -> Known | None:
    """MatMul with weights on either side, as one matrix or as a stack."""
    rank = len(x.shape)
    left = graph.chance(0.3) and rank > 2
    depth, outputs = x.shape[-2] if left else x.shape[-1], int(graph.pick([1, 3, 4, 8]))
    shape, axis = ((outputs, depth), 0) if left else ((depth, outputs), 1)
    leading = (1,) * int(graph.random.integers(0, rank - 1)) if graph.chance(0.3) else ()
    stacked = rank == 4 and graph.chance(0.1)
    if stacked:
        leading = (x.shape[1],)
    name, numbers, kind = weights(graph, (*leading, *shape), axis + len(leading))
    size = _grown(x, numbers, depth)
    if size is None:
        return None
    label = graph.name("layer")
    y = graph.op("MatMul", *((name, x.name) if left else (x.name, name)), label=label)
    result = (*x.shape[:-2], outputs, x.shape[-1]) if left else (*x.shape[:-1], outputs)
    _finish(graph, x, label, "real" if stacked else kind, False)
    y = graph.derived(y, x, shape=result, bound=size[0], grain=size[1], opaque=True)
    if graph.chance(0.3):
        added = graph.op("Add", y.name, graph.constant(graph.random.integers(-2, 3, outputs if not left else 1)))
        return graph.derived(added, y, bound=y.bound + 2, opaque=True)
    return y
