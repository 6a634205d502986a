"""Standard operators that TVM's front end imports as opaque TIR functions, imported as operators that passes understand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import ir, relax

from bnn_deploy.errors import ModelFileError

Attributes = Mapping[str, Any]
Conversion = Callable[[relax.BlockBuilder, Sequence[relax.Expr | None], Attributes], relax.Expr]


def _clip(builder: relax.BlockBuilder, inputs: Sequence[relax.Expr | None], attributes: Attributes) -> relax.Expr:
    """Minimum(Maximum(x, lowest), highest), as ONNX defines it; either bound may be missing."""
    x, lowest, highest = [*inputs, None, None][:3]
    if lowest is not None:
        x = builder.emit(relax.op.maximum(x, lowest))
    return x if highest is None else builder.emit(relax.op.minimum(x, highest))


def _pad(builder: relax.BlockBuilder, inputs: Sequence[relax.Expr | None], attributes: Attributes) -> relax.Expr:
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


def _tile(builder: relax.BlockBuilder, inputs: Sequence[relax.Expr | None], attributes: Attributes) -> relax.Expr:
    """Whole copies along each axis."""
    x, repeats = inputs
    if not isinstance(repeats, ir.GenericConst):
        raise ModelFileError("Tile needs constant repeats; export the model with a fixed input size.")
    return builder.emit(relax.op.tile(x, [int(count) for count in repeats.value.numpy()]))


CONVERSIONS: dict[str, Conversion] = {"Clip": _clip, "Pad": _pad, "Tile": _tile}
