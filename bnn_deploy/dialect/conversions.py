"""Standard operators that TVM's front end imports as opaque TIR functions, imported as operators that passes understand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import ir, relax

from bnn_deploy.errors import ModelFileError

# Relax expressions, None where a node leaves out one that it need not have.
Inputs = Sequence[Any]
Attributes = Mapping[str, Any]
Conversion = Callable[[relax.BlockBuilder, Inputs, Attributes], relax.Expr | None]


def _clip(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """Minimum(Maximum(x, lowest), highest), as ONNX defines it; either bound may be missing."""
    x, lowest, highest = [*inputs, None, None][:3]
    if lowest is not None:
        x = builder.emit(relax.op.maximum(x, lowest))
    return x if highest is None else builder.emit(relax.op.minimum(x, highest))


def _pad(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """A constant around the tensor; other modes are refused."""
    x, pads, value, axes = [*inputs, None, None, None][:4]
    mode = attributes.get("mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else str(mode)
    if mode != "constant":
        raise ModelFileError(f"Pad of mode '{mode}' is not supported, only 'constant' is; pad before the network.")
    if x is None or not isinstance(pads, ir.GenericConst):
        raise ModelFileError("Pad needs constant pads; export the model with a fixed input size.")
    rank = len(x.ty.shape.values)
    padded = range(rank) if axes is None else [int(axis) % rank for axis in axes.value.numpy()]
    amounts = pads.value.numpy().astype(np.int64).reshape(2, -1)
    if amounts.min() < 0:
        raise ModelFileError(f"Pad has negative pads {amounts.reshape(-1).tolist()}; use Slice instead.")
    widths = [0] * (2 * rank)
    for position, axis in enumerate(padded):
        widths[2 * axis : 2 * axis + 2] = (int(amount) for amount in amounts[:, position])
    number = 0.0 if value is None else float(value.value.numpy().reshape(()))
    return builder.emit(relax.op.nn.pad(x, widths, "constant", number))


def _tile(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """Whole copies along each axis."""
    x, repeats = inputs
    if not isinstance(repeats, ir.GenericConst):
        raise ModelFileError("Tile needs constant repeats; export the model with a fixed input size.")
    return builder.emit(relax.op.tile(x, [int(count) for count in repeats.value.numpy()]))


def _gather(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr | None:
    """Elements at constant places: a slice where they are evenly spaced; None leaves anything else to TVM."""
    x, indices = inputs
    if (
        not isinstance(indices, ir.GenericConst)
        or not isinstance(x.ty, relax.TensorType)
        or isinstance(x, ir.GenericConst)
    ):
        return None
    places = indices.value.numpy()
    shape = [int(extent) for extent in x.ty.shape.values]
    axis = int(attributes.get("axis", 0)) % len(shape)
    if places.ndim > 1 or not places.size:
        return None
    if places.max() >= shape[axis] or places.min() < -shape[axis]:
        raise ModelFileError(
            f"Gather reads place {places.max()} of axis {axis}, which has {shape[axis]}; export it again."
        )
    places = places.astype(np.int64) % shape[axis]
    first, last = int(places.reshape(-1)[0]), int(places.reshape(-1)[-1])
    step = int(places[1] - places[0]) if places.size > 1 else 1
    if step > 0 and np.array_equal(places.reshape(-1), np.arange(first, last + 1, step)):
        result = builder.emit(relax.op.strided_slice(x, [axis], [first], [last + 1], [step]))
    else:
        result = builder.emit(relax.op.take(x, relax.const(places), axis=axis, mode="clip"))
    return result if places.ndim else builder.emit(relax.op.reshape(result, shape[:axis] + shape[axis + 1 :]))


def _hard_sigmoid(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """max(0, min(1, alpha x + beta))."""
    return _clipped_line(builder, inputs[0], float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5)))


def _hard_swish(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """x max(0, min(1, x / 6 + 0.5))."""
    return builder.emit(relax.op.multiply(inputs[0], _clipped_line(builder, inputs[0], 1 / 6, 0.5)))


def _clipped_line(builder: relax.BlockBuilder, x: relax.Expr, slope: float, offset: float) -> relax.Expr:
    line = builder.emit(relax.op.multiply(x, relax.const(slope, "float32")))
    line = builder.emit(relax.op.add(line, relax.const(offset, "float32")))
    line = builder.emit(relax.op.maximum(line, relax.const(0.0, "float32")))
    return builder.emit(relax.op.minimum(line, relax.const(1.0, "float32")))


def _celu(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)), which TVM does not know."""
    x, zero = inputs[0], relax.const(0.0, "float32")
    alpha = relax.const(float(attributes.get("alpha", 1.0)), "float32")
    power = builder.emit(relax.op.exp(builder.emit(relax.op.divide(x, alpha))))
    power = builder.emit(relax.op.multiply(builder.emit(relax.op.subtract(power, relax.const(1.0, "float32"))), alpha))
    negative = builder.emit(relax.op.minimum(power, zero))
    return builder.emit(relax.op.add(builder.emit(relax.op.maximum(x, zero)), negative))


def _refused(reason: str) -> Conversion:
    def conversion(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> relax.Expr:
        raise ModelFileError(reason)

    return conversion


def _transposed_convolution(builder: relax.BlockBuilder, inputs: Inputs, attributes: Attributes) -> None:
    """TVM's own import does not look at output_shape."""
    if attributes.get("output_shape"):
        raise ModelFileError(
            "output_shape is not supported; give pads and output_padding instead, as PyTorch's exporters do."
        )


# A conversion that returns None leaves the operator to TVM.
CONVERSIONS: dict[str, Conversion] = {
    "Celu": _celu,
    "Clip": _clip,
    "ConvTranspose": _transposed_convolution,
    "Gather": _gather,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Pad": _pad,
    "Resize": _refused(
        "antialias, tf_crop_and_resize, keep_aspect_ratio_policy and sizes computed from the image are not supported; export "
        "with a fixed input size and antialias=False."
    ),
    "Tile": _tile,
}
