"""Binarisations in many spellings, each with the numbers that it gives below, at and above its threshold."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.frontend.random_graph import GraphBuilder, Known

_SIGN = (-1.0, 0.0, 1.0)
_ABOVE = (-1.0, -1.0, 1.0)  # x > t
_FROM = (-1.0, 1.0, 1.0)  # x >= t


def binarise(graph: GraphBuilder, x: Known) -> Known:
    """A binarisation of ``x``, spelled at random."""
    threshold = float(graph.pick([0.0, 0.0, 0.0, 1.0, -2.0, 0.5]))
    spelling = graph.pick(
        [_sign, _where, _cast, _identity_ste, _clip_ste, _polynomial, _round, _doubled, _vector, _factor]
    )
    name, levels = spelling(graph, x, threshold)
    low, middle, high = levels
    # A middle value that is one of the others belongs to a two-valued function.
    levels = (low, None if middle in (low, high) else middle, high) if x.opaque else None
    numbers = [abs(number) for number in (low, middle, high)]
    return graph.derived(
        name, x, bound=max(numbers), grain=min(0.5, *(number for number in numbers if number)), levels=levels
    )


def _moved(graph: GraphBuilder, x: Known, threshold: float) -> str:
    """x - threshold."""
    if threshold == 0:
        return x.name
    return (
        graph.op("Sub", x.name, graph.constant(threshold))
        if graph.chance(0.5)
        else graph.op("Add", x.name, graph.constant(np.full((1,) * len(x.shape), -threshold)))
    )


def _sign(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    return graph.op("Sign", _moved(graph, x, threshold)), _SIGN


def _compared(graph: GraphBuilder, x: Known, threshold: str) -> tuple[str, tuple]:
    """A bool, and which of two values belongs to below, at, above: 0 for False."""
    operator = str(graph.pick(["Greater", "Less", *(["GreaterOrEqual", "LessOrEqual"] if graph.opset >= 12 else [])]))
    first = graph.chance(0.7)
    sides = (x.name, threshold) if first else (threshold, x.name)
    below, above = ("Less" in operator) == first, ("Greater" in operator) == first
    found = graph.op(operator, *sides)
    truth = (below, operator.endswith("Equal"), above)
    if graph.chance(0.3):
        found, truth = graph.op("Not", found), tuple(not known for known in truth)
    return found, truth


def _where(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    condition, truth = _compared(graph, x, graph.constant(threshold))
    yes, no = (1.0, -1.0) if graph.chance(0.6) else (0.5, -0.5) if graph.chance(0.5) else (1.0, 0.0)
    if graph.chance(0.3):
        shape = graph.op("Shape", x.name)
        names = [graph.op("Expand", graph.constant(number), shape) for number in (yes, no)]
    else:
        names = [graph.constant(np.full((1,) * int(graph.random.integers(0, len(x.shape) + 1)), n)) for n in (yes, no)]
    return graph.op("Where", condition, *names), tuple(yes if known else no for known in truth)


def _cast(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    condition, truth = _compared(graph, x, graph.constant([threshold]))
    name = condition
    if graph.chance(0.3):
        name = graph.cast(name, TensorProto.INT32)
    name = graph.cast(name)
    if graph.chance(0.3):
        return name, tuple(float(known) for known in truth)
    name = graph.op("Sub", graph.op("Mul", name, graph.constant(2.0)), graph.constant(1.0))
    return name, tuple(2.0 * known - 1.0 for known in truth)


def _identity_ste(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    hard = graph.op("Where", graph.op("Less", x.name, graph.constant(0.0)), graph.constant(-1.0), graph.constant(1.0))
    return graph.op("Add", x.name, graph.op("Sub", hard, x.name)), _FROM


def _clip_ste(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    moved = _moved(graph, x, threshold)
    clipped = graph.op("Clip", moved, graph.constant(-1.0), graph.constant(1.0))
    sign = graph.op("Sign", clipped if graph.chance(0.5) else moved)
    return graph.op("Add", graph.op("Sub", sign, clipped), clipped), _SIGN


def _polynomial(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    """sign(x) minus and plus a clipped parabola."""
    square = graph.op("Mul", x.name, x.name) if graph.chance(0.5) else graph.op("Pow", x.name, graph.constant(2.0))
    inside = graph.op("Clip", graph.op("Mul", x.name, graph.constant(2.0)), graph.constant(-1.0), graph.constant(1.0))
    positive = graph.cast(graph.op("Greater", x.name, graph.constant(0.0)))
    smooth = graph.op("Mul", graph.op("Min", square, graph.constant(1.0)), positive)
    smooth = graph.op("Max", smooth, graph.op("Mul", inside, positive))
    smooth = graph.op("Sub", smooth, graph.op("Sub", graph.constant(1.0), positive))
    return graph.op("Add", graph.op("Sub", graph.op("Sign", x.name), smooth), smooth), _SIGN


def _round(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    """-1, 0 and +1, with 0 for |x| <= 0.5 (half to even)."""
    return graph.op("Round", graph.op("Clip", x.name, graph.constant(-1.0), graph.constant(1.0))), _SIGN


def _doubled(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    """In float64, as a graph of mixed types has it."""
    wide = graph.cast(x.name, TensorProto.DOUBLE)
    return graph.cast(graph.op("Sign", wide)), _SIGN


def _vector(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    """One threshold for each channel."""
    channels = x.shape[1] if len(x.shape) == 4 or graph.chance(0.5) else x.shape[-1]
    layout = (channels, *[1] * (len(x.shape) - 2)) if channels == x.shape[1] and len(x.shape) > 2 else (x.shape[-1],)
    numbers = graph.random.integers(-3, 4, layout) / 2
    if numbers.size > 1 and np.unique(numbers).size == 1:
        numbers.reshape(-1)[0] += 1
    condition, truth = _compared(graph, x, graph.constant(numbers))
    one, minus = graph.constant(1.0), graph.constant(-1.0)
    return graph.op("Where", condition, one, minus), tuple(1.0 if known else -1.0 for known in truth)


def _factor(graph: GraphBuilder, x: Known, threshold: float) -> tuple[str, tuple]:
    """A falling sign."""
    name = graph.op("Neg", x.name) if graph.chance(0.5) else graph.op("Mul", x.name, graph.constant(-2.0))
    condition = graph.op("Greater", name, graph.constant(0.0))
    return graph.op("Where", condition, graph.constant(1.0), graph.constant(-1.0)), (1.0, -1.0, -1.0)
