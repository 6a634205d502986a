"""Small Relax networks written down in a few lines: the Before and Expected modules of the pass tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import ConvolutionAttributes, call

Emit = Callable[..., relax.Var]


def build(
    shapes: Sequence[tuple[int, ...]],
    body: Callable[..., relax.Expr],
    layer_names: Mapping[str, str] | None = None,
) -> tvm.IRModule:
    """A module whose ``main`` takes float32 inputs ``x0``, ``x1``, … of the given shapes.

    ``body(emit, x0, x1, …)`` returns the output. ``emit(expression)`` makes a variable, which is needed only where a value
    is used twice; ``emit(expression, "name")`` names it as ``name_layers`` does.
    """
    builder = relax.BlockBuilder()

    def emit(expression: relax.Expr, layer: str = "") -> relax.Var:
        return builder.emit(expression, name_hint=f"{layer}:" if layer else "")

    inputs = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    with builder.function("main", inputs):
        with builder.dataflow():
            output = builder.emit_output(emit(body(emit, *inputs)))
        builder.emit_func_output(output)
    return builder.finalize().with_attr("layer_names", dict(layer_names or {}))


def constant(values: object, dtype: str = "float32") -> relax.Expr:
    """An embedded tensor."""
    return relax.const(np.array(values, dtype=dtype, order="C"), dtype)


def per_channel(values: Sequence[float]) -> relax.Expr:
    """Constant (1, C, 1, 1)."""
    return constant(np.reshape(np.asarray(values, "float32"), (1, -1, 1, 1)))


def sign(x: relax.Expr, threshold: object = 0.0, zero: int = -1) -> relax.Call:
    """bnn.sign; the threshold is an expression or numbers."""
    bound = threshold if isinstance(threshold, relax.Expr) else constant(threshold)
    return call("bnn.sign", [x, bound], {"zero": zero})


def ternary(x: relax.Expr) -> relax.Call:
    """bnn.ternary."""
    return call("bnn.ternary", [x])


def packed_weights(outputs: int, bits: int, seed: int = 0) -> np.ndarray:
    """Random packed weights, uint8 (outputs, ceil(bits / 8)), tail bits 0."""
    positive = np.random.default_rng(seed).integers(0, 2, (outputs, bits), np.uint8)
    return np.packbits(positive, axis=1, bitorder="little")


def geometry(
    in_channels: int,
    kernel: tuple[int, int] = (1, 1),
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    group: int = 1,
    ternary: int = 0,
    channels_last: int = 0,
) -> ConvolutionAttributes:
    """Attributes of a binary convolution, with defaults."""
    return ConvolutionAttributes(kernel, strides, pads, group, in_channels, ternary, channels_last)


def convolution(
    x: relax.Expr,
    outputs: int,
    attributes: ConvolutionAttributes,
    scale: object = None,
    shift: object = None,
    name: str = "bnn.conv2d",
    seed: int = 0,
) -> relax.Call:
    """A binary convolution with random weights; scale 1 and shift 0 unless given."""
    taps = attributes.kernel_shape[0] * attributes.kernel_shape[1]
    weight = packed_weights(outputs, taps * (attributes.in_channels // attributes.group), seed)
    scale = np.ones(outputs) if scale is None else scale
    shift = np.zeros(outputs) if shift is None else shift
    return call(name, [x, constant(weight, "uint8"), constant(scale), constant(shift)], attributes)


def linear(
    x: relax.Expr,
    features: int,
    outputs: int,
    scale: object = None,
    shift: object = None,
    name: str = "bnn.linear",
    ternary: int = 0,
) -> relax.Call:
    """A binary linear layer with random weights."""
    scale = np.ones(outputs) if scale is None else scale
    shift = np.zeros(outputs) if shift is None else shift
    arguments = [x, constant(packed_weights(outputs, features), "uint8"), constant(scale), constant(shift)]
    return call(name, arguments, {"in_features": features, "ternary": ternary})


def take(x: relax.Expr, axis: int, begin: int, end: int, step: int = 1) -> relax.Call:
    """Strided slice along one axis."""
    return relax.op.strided_slice(x, [axis], [begin], [end], [step])


def roll(x: relax.Expr, axis: int, shift: int, extent: int) -> relax.Call:
    """What torch.roll by ``shift`` is exported as."""
    return relax.op.concat([take(x, axis, extent - shift, extent), take(x, axis, 0, extent - shift)], axis=axis)


def operators(module: tvm.IRModule) -> list[str]:
    """Names of the operators that ``main`` calls, in order."""
    values = [binding.value for block in module["main"].body.blocks for binding in block.bindings]
    return [value.op.name for value in values if isinstance(value, relax.Call)]
