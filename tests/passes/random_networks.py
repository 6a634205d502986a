"""Random small networks of the kind the models are made of, for property tests of the passes.

All numbers are whole or halves, quarters, … of whole numbers, so that float64 holds every result exactly and two ways of
computing the same function must agree bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import tvm
from hypothesis import strategies as st
from tvm import relax

from tests.passes.networks import build, constant, convolution, geometry, linear, per_channel, roll, sign, take, ternary

# Single channels, channels that fill no word, that straddle words, and whole words.
CHANNELS = (1, 3, 12, 31, 33, 64)


@dataclass
class Layers:
    """Emits layers chosen by ``draw`` onto an image ``x``, NCHW."""

    draw: st.DrawFn
    emit: object
    x: relax.Var
    random: np.random.Generator
    shortcuts: list[relax.Var] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(extent) for extent in self.x.ty.shape.values)

    def numbers(self, count: int, quarters: int = 8) -> np.ndarray:
        """Random multiples of 1/4 between -quarters/4 and +quarters/4."""
        return self.random.integers(-quarters, quarters + 1, count) / 4

    def choose(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def add_layer(self) -> None:
        layers = (self.binary, self.binary, self.binary, self.affine, self.prelu, self.convolution, self.pool)
        self.shortcuts.append(self.x)
        self.choose(*layers, self.shortcut, self.move, self.activation)()

    def binary(self) -> None:
        """(bias) -> sign or ternary -> movement -> binary convolution."""
        channels, three = self.shape[1], self.choose(False, False, True)
        if self.choose(False, True):
            self.x = self.emit(relax.op.add(self.x, per_channel(self.numbers(channels, 4))))
        if three:
            self.x = self.emit(ternary(self.x))
        else:
            threshold = self.choose(0.0, self.numbers(channels, 4).reshape(1, -1, 1, 1))
            self.x = self.emit(sign(self.x, threshold, zero=self.choose(-1, 0, 1)))
        for _ in range(self.choose(0, 1, 2)):
            self.move()
        _, channels, height, width = self.shape
        depthwise = channels > 1 and self.choose(False, False, True)
        kernel = self.choose((1, 1), (3, 3), (1, 3), (2, 1))
        pads = tuple(self.draw(st.integers(0, 1)) for _ in range(4))
        if kernel[0] > height + pads[0] + pads[2] or kernel[1] > width + pads[1] + pads[3]:
            kernel = (1, 1)
        outputs = channels if depthwise else self.choose(*CHANNELS)
        tap = self.choose(False, False, True)
        scale = self.numbers(outputs * kernel[0] * kernel[1]).reshape(outputs, -1) if tap else self.numbers(outputs)
        attributes = geometry(channels, kernel, self.choose((1, 1), (2, 2)), pads, channels if depthwise else 1)
        name = "bnn.tap_scaled_conv2d" if tap else "bnn.conv2d"
        seed = int(self.random.integers(1000))
        self.x = self.emit(convolution(self.x, outputs, attributes, scale, self.numbers(outputs), name, seed))

    def move(self) -> None:
        """Rolls, slices, concatenations and splits, on space and on channels."""
        axis = self.choose(1, 2, 3)
        extent = self.shape[axis]
        kind = self.choose("roll", "slice", "negative slice", "stride", "double", "split")
        if kind == "roll" and extent > 1:
            self.x = self.emit(roll(self.x, axis, self.draw(st.integers(1, extent - 1)), extent))
        elif kind == "slice":
            begin = self.choose(0, extent // 2)
            self.x = self.emit(take(self.x, axis, begin, self.choose(extent, 2**63 - 1)))
        elif kind == "negative slice" and extent > 1:
            self.x = self.emit(take(self.x, axis, -(-extent // 2), self.choose(extent, 2**63 - 1)))
        elif kind == "stride":
            self.x = self.emit(take(self.x, axis, 0, extent, 2))
        elif kind == "double" and extent < 40:
            self.x = self.emit(relax.op.concat([self.x, self.x], axis=axis))
        elif kind == "split" and extent % 2 == 0:
            parts = self.emit(relax.op.split(self.x, 2, axis=axis))
            halves = [self.emit(relax.TupleGetItem(parts, i)) for i in (1, 0)]
            self.x = self.emit(relax.op.concat(halves, axis=axis))

    def affine(self) -> None:
        operator = self.choose(relax.op.add, relax.op.subtract, relax.op.multiply)
        arguments = [self.x, per_channel(self.numbers(self.shape[1]))]
        if self.choose(False, True):
            arguments.reverse()
        self.x = self.emit(operator(*arguments))

    def prelu(self) -> None:
        self.x = self.emit(relax.op.nn.prelu(self.x, constant(self.numbers(self.shape[1])), axis=1))

    def activation(self) -> None:
        self.x = self.emit(self.choose(relax.op.nn.relu, relax.op.abs, relax.op.negative)(self.x))

    def convolution(self) -> None:
        channels = self.shape[1]
        outputs, groups = (channels, channels) if self.choose(False, True) else (self.choose(*CHANNELS), 1)
        weight = self.numbers(outputs * channels // groups * 9, 4).reshape(outputs, channels // groups, 3, 3)
        self.x = self.emit(relax.op.nn.conv2d(self.x, constant(weight), padding=[1, 1, 1, 1], groups=groups))

    def pool(self) -> None:
        if min(self.shape[2:]) >= 2:
            operator = self.choose(relax.op.nn.max_pool2d, relax.op.nn.avg_pool2d)
            self.x = self.emit(operator(self.x, pool_size=[2, 2], strides=[2, 2]))

    def shortcut(self) -> None:
        """A residual from any earlier value of the same shape, or the same channels of a single pixel."""
        fitting = [s for s in self.shortcuts if [int(e) for e in s.ty.shape.values] == list(self.shape)]
        if fitting:
            self.x = self.emit(relax.op.add(self.x, self.choose(*fitting)))

    def head(self) -> relax.Expr:
        """Nothing, a spatial mean, or a binary linear layer of it."""
        kind = self.choose("none", "mean", "linear")
        if kind == "none":
            return self.x
        # Sums and signs only: means over 3 or 5 pixels are no binary fractions.
        total = self.emit(relax.op.sum(self.x, axis=[2, 3], keepdims=False))
        if kind == "mean":
            return total
        return linear(self.emit(sign(total)), self.shape[1], 5)


@st.composite
def networks(draw: st.DrawFn, deepest: int = 4) -> tuple[tvm.IRModule, np.ndarray]:
    """A module of up to ``deepest`` layers, and an input for it."""
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from(CHANNELS)), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    depth = draw(st.integers(1, deepest))

    def body(emit: object, x: relax.Var) -> relax.Expr:
        layers = Layers(draw, emit, x, random)
        for _ in range(depth):
            layers.add_layer()
        return layers.head()

    return build([shape], body), random.integers(-6, 7, shape) / 2.0
