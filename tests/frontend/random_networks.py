"""Whole networks at random: standard ONNX files, inputs on which their arithmetic is exact, and the layers that are binary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx

from tests.frontend.random_activations import binarise
from tests.frontend.random_graph import BATCH, GraphBuilder, Known
from tests.frontend.random_layers import convolution, gemm, product, transposed_convolution
from tests.frontend.random_movement import max_pool, move, pad

_SHAPES = [(4, 6, 6), (3, 5, 4), (8, 4, 4), (4, 7), (6, 4), (5, 3, 2), (8,), (16,), (2, 8, 3)]
_LARGEST = 3000


@dataclass(frozen=True)
class RandomNetwork:
    """A file and what must become of it.

    Attributes:
        x: a float32 input, exact zeros and numbers at thresholds among it.
        binary_layers: names of nodes that must be found to be binary.
        zero_weights: whether one of the layers that would be binary has weights that are 0.
    """

    model: onnx.ModelProto
    x: np.ndarray
    binary_layers: frozenset[str]
    zero_weights: bool


def random_network(seed: int, steps: int = 12, plain: bool = False) -> RandomNetwork:
    """A network of about so many operations; ``plain`` has one output and a fixed batch, as the compiler wants it."""
    random = np.random.default_rng(seed)
    opset = int(random.choice([11, 12, 13, 15, 17, 18, 20, 21, 21, 21, 22, 23]))
    graph = GraphBuilder(random, opset, open_batch=bool(random.random() < 0.5) and not plain)
    shape = (BATCH, *graph.pick(_SHAPES))
    x = Known("x", shape, 4.0, 0.5, opaque=True)
    values = [x]
    for _ in range(steps):
        # Mostly go on from what was made last; now and then share an older value.
        value = values[-1] if graph.chance(0.75) else graph.pick(values)
        made = _step(graph, value, values)
        if (
            made is not None
            and made.name != value.name
            and made.fits
            and np.prod(made.shape) <= _LARGEST
            and all(made.shape)
        ):
            values.append(made)
    for _ in range(2):
        binary = [value for value in values if value.levels is not None]
        if binary and not graph.binary_layers:
            value = binary[-1]
            values += [made for layer in (convolution, gemm, product) if (made := layer(graph, value)) is not None]
    outputs = list(
        dict.fromkeys([values[-1], *(graph.pick(values[1:] or values) for _ in range(2) if graph.chance(0.3))])
    )
    outputs = [_as_output(graph, value) for value in outputs[: 1 if plain else None]]
    grid = random.integers(-4, 5, shape) * random.choice([1.0, 0.5])
    grid = np.where(random.random(shape) < 0.2, 0.0, grid)
    model = graph.model(x, outputs)
    alive = _alive(model)
    layers, zeros = frozenset(graph.binary_layers & alive), bool(graph.zero_layers & alive)
    return RandomNetwork(model, grid.astype(np.float32), layers, zeros)


def _alive(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes from which an output is computed."""
    makers = {name: node for node in model.graph.node for name in node.output}
    pending, names, seen = [value.name for value in model.graph.output], set(), set()
    while pending:
        value = pending.pop()
        if value in makers and value not in seen:
            seen.add(value)
            names.add(makers[value].name)
            pending += makers[value].input
    return names


def _as_output(graph: GraphBuilder, value: Known) -> Known:
    """A graph's output; an Identity of it where it is the input, or by chance."""
    if value.name == "x" or graph.chance(0.3):
        return replace(value, name=graph.op("Identity", value.name))
    return value


def _step(graph: GraphBuilder, x: Known, values: list[Known]) -> Known | None:
    real = [binarise] * 4 + [_real_function, _channelwise, _normalisation, _join, _no_op, move, max_pool, pad]
    real += [_average, convolution, gemm, product, transposed_convolution]
    binary = [convolution, gemm, product] * 3 + [move] * 4 + [max_pool, pad, scale] * 2 + [_join, _channelwise, _no_op]
    binary += [_real_function, _average]
    way = graph.pick(binary if x.levels is not None else real)
    if way is _join and graph.chance(0.7):
        others = [value for value in values if len(value.shape) == len(x.shape) and value.shape[0] == x.shape[0]]
        return _join(graph, x, graph.pick(others))
    return way(graph, x)


def scale(graph: GraphBuilder, x: Known) -> Known:
    """Arithmetic with one number, which keeps two values two."""
    operator = str(graph.pick(["Mul", "Add", "Sub", "Div", "Neg"]))
    number = float(graph.pick([0.5, 1.0, 2.0, -1.0, -0.5]))
    operations: dict[str, Callable[[float], float]] = {
        "Mul": lambda value: value * number,
        "Add": lambda value: value + number,
        "Sub": lambda value: value - number,
        "Div": lambda value: value / number,
        "Neg": lambda value: -value,
    }
    constant = graph.constant(np.full((1,) * int(graph.random.integers(0, len(x.shape) + 1)), number))
    name = graph.op("Neg", x.name) if operator == "Neg" else graph.op(operator, x.name, constant)
    compute = operations[operator]
    if operator == "Sub" and graph.chance(0.4):
        name, compute = graph.op("Sub", constant, x.name), lambda value: number - value
    levels = None if x.levels is None else tuple(None if level is None else compute(level) for level in x.levels)
    return replace(x, name=name, bound=2 * x.bound + 2, grain=min(x.grain, 0.5) / 2, levels=levels, opaque=False)


def _real_function(graph: GraphBuilder, x: Known) -> Known:
    operator = str(graph.pick(["Relu", "PRelu", "LeakyRelu", "Clip", "Abs", "TwoBits", "HardSign"]))
    grain = x.grain / 4
    if operator == "PRelu":
        slopes = graph.random.choice([-0.5, 0.25, 0.5, 2.0], (x.shape[1], *[1] * (len(x.shape) - 2)))
        name = graph.op("PRelu", x.name, graph.constant(slopes))
        return graph.derived(name, x, bound=2 * x.bound, grain=grain, opaque=True)
    if operator == "LeakyRelu":
        return graph.derived(graph.op("LeakyRelu", x.name, alpha=0.25), x, grain=grain)
    if operator == "Clip":
        upper = graph.chance(0.5)
        bounds = [graph.constant(-2.0), graph.constant(2.0)] if upper else [graph.constant(0.0)]
        return graph.derived(graph.op("Clip", x.name, *bounds), x, bound=max(x.bound, 2.0), grain=min(grain, 1.0))
    if operator == "TwoBits":
        clipped = graph.op("Clip", x.name, graph.constant(0.0), graph.constant(1.0))
        four = graph.op("Round", graph.op("Mul", clipped, graph.constant(2.0)))
        return graph.derived(four, x, bound=2.0, grain=1.0)
    if operator == "HardSign":  # A sum of two signs: three values, but no sign.
        parts = [
            graph.cast(graph.op("Greater", x.name, graph.constant(threshold)))
            for threshold in (0.0, float(graph.pick([0.0, 1.0])))
        ]
        return graph.derived(graph.op("Add", *parts), x, bound=2.0, grain=1.0)
    return graph.derived(graph.op(operator, x.name), x)


def _channelwise(graph: GraphBuilder, x: Known) -> Known:
    """A number for each channel, as RSign and learned scales have it; sometimes repeated over the whole value."""
    layout = (x.shape[1], *[1] * (len(x.shape) - 2)) if graph.chance(0.7) else (x.shape[-1],)
    operator = str(graph.pick(["Add", "Mul", "Sub"]))
    numbers = graph.random.choice([-1.0, 0.5, 1.0, 2.0], layout)
    constant = graph.constant(numbers)
    if graph.chance(0.3):
        constant = graph.op("Expand", constant, graph.op("Shape", x.name))
    sides = (x.name, constant) if graph.chance(0.7) else (constant, x.name)
    bound = 2 * x.bound if operator == "Mul" else x.bound + 2
    # One channel: the vector is one number, and what it is applied to may still be binary; that is not demanded here.
    opaque = x.opaque and numbers.size > 1
    return graph.derived(graph.op(operator, *sides), x, bound=bound, grain=min(x.grain, 1.0) / 2, opaque=opaque)


def _normalisation(graph: GraphBuilder, x: Known) -> Known | None:
    channels = x.shape[1]
    numbers = [
        graph.random.choice(options, channels)
        for options in ([-1.0, 0.5, 1.0, 0.0], [-1.0, 0.0, 0.5], [0.0, 1.0, -0.5])
    ]
    names = [graph.constant(vector) for vector in (*numbers, graph.random.choice([1.0, 4.0, 0.25], channels))]
    name = graph.op("BatchNormalization", x.name, *names, epsilon=0.0)
    return graph.derived(name, x, bound=2 * (x.bound + 1) + 1, grain=min(x.grain, 0.5) / 4, opaque=True)


def _average(graph: GraphBuilder, x: Known) -> Known | None:
    """Means over two or four elements, and sums."""
    if len(x.shape) == 4 and min(x.shape[2:]) >= 2 and graph.chance(0.6):
        name = graph.op("AveragePool", x.name, kernel_shape=[2, 2], strides=[2, 2])
        return graph.derived(
            name, x, shape=(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2), grain=x.grain / 4, opaque=True
        )
    if len(x.shape) < 3:
        return None
    name = graph.axes("ReduceSum", x.name, [len(x.shape) - 1], keepdims=1)
    return graph.derived(name, x, shape=(*x.shape[:-1], 1), bound=x.bound * x.shape[-1], opaque=True)


def _no_op(graph: GraphBuilder, x: Known) -> Known:
    """Nodes that do nothing in inference."""
    way = graph.pick(["Identity", "Dropout", "Cast", "Slice"])
    if way == "Slice":
        name = graph.op("Slice", x.name, *(graph.constant([number], np.int64) for number in (0, 2**63 - 1, 0, 1)))
    else:
        name = graph.cast(x.name) if way == "Cast" else graph.op(str(way), x.name)
    return replace(x, name=name)


def _join(graph: GraphBuilder, x: Known, other: Known | None = None) -> Known | None:
    """A residual sum, a product or a Concat with another value, which may be ``x`` moved."""
    other = other or move(graph, x)
    bound, grain = max(x.bound, other.bound), min(x.grain, other.grain)
    if other.shape == x.shape and graph.chance(0.7):
        operator = str(graph.pick(["Add", "Add", "Sub", "Mul", "Max"]))
        if operator == "Mul":
            bound, grain = max(bound, x.bound * other.bound), min(grain, x.grain * other.grain)
        elif operator != "Max":
            bound = x.bound + other.bound
        return graph.derived(graph.op(operator, x.name, other.name), x, bound=bound, grain=grain)
    for axis in range(1, len(x.shape) if len(other.shape) == len(x.shape) else 0):
        if other.shape[:axis] + other.shape[axis + 1 :] == x.shape[:axis] + x.shape[axis + 1 :]:
            pair = (x, other) if graph.chance(0.5) else (other, x)
            name = graph.op("Concat", *(value.name for value in pair), axis=axis)
            extent = x.shape[axis] + other.shape[axis]
            same = x.levels == other.levels and "M" not in x.passed + other.passed
            made = replace(
                x, name=name, shape=(*x.shape[:axis], extent, *x.shape[axis + 1 :]), bound=bound, grain=grain
            )
            # Padding and pooling of one part only: the rules look behind some, which is not demanded here.
            passed = max(x.passed, other.passed)
            return replace(made, levels=x.levels if same else None, passed=passed, opaque=False)
    return None
