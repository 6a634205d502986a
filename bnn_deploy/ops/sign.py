"""``Sign(X, threshold) -> Y``: +1 above the threshold, -1 below it (BiMLP Eq. 1, BCDNet Eq. 11).

At the threshold the attribute ``zero`` is the answer: -1 (the default), +1 (QONNX's convention) or 0 (``torch.sign``: three
values). Comparison is IEEE 754: -0.0 equals 0.0. NaN, on either side, gives -1, and 0 where ``zero`` is 0, as in ``Ternary``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, TensorProto, helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.operator import Attributes, Operator, Shape, attribute_constant, constant, require


def infer_shape(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    """X ``(...)``, threshold broadcastable to X -> the shape of X."""
    values, threshold = shapes
    require(attributes["zero"] in (-1, 0, 1), f"Sign: attribute zero must be -1, 0 or +1, found {attributes['zero']}.")
    try:
        result = np.broadcast_shapes(values, threshold)
    except ValueError:
        result = None
    if result != tuple(values):
        raise ModelFileError(f"Sign: the threshold of shape {threshold} does not broadcast to X of shape {values}.")
    return result


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """float32 X and threshold -> float32 of -1 and +1, and of 0 where ``zero`` is 0; shape of X."""
    values, threshold = arrays
    infer_shape([values.shape, threshold.shape], attributes)
    if attributes["zero"] == 0:
        signs: np.ndarray = np.subtract(values > threshold, values < threshold, dtype=np.float32)
    else:
        positive = values >= threshold if attributes["zero"] == 1 else values > threshold
        signs = np.where(positive, np.float32(1), np.float32(-1))
    return signs


def body() -> list[NodeProto]:
    """``Where(X > t, 1, Where(X == t, zero, Where(X < t, -1, NaN's)))``; not ``Sign(X - t)``, which fails for inf - inf.

    What NaN gives, -1 or 0, is ``-abs(zero)``, counted in integers: 0 is never -0.0.
    """
    return [
        attribute_constant("zero_integer", "zero", is_list=False),
        constant("one", 1),
        constant("minus_one", -1),
        helper.make_node("Cast", ["zero_integer"], ["at_threshold"], to=TensorProto.FLOAT),
        helper.make_node("Abs", ["zero_integer"], ["two_valued"]),
        helper.make_node("Neg", ["two_valued"], ["unordered_integer"]),
        helper.make_node("Cast", ["unordered_integer"], ["unordered"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["X", "threshold"], ["above"]),
        helper.make_node("Equal", ["X", "threshold"], ["equal"]),
        helper.make_node("Less", ["X", "threshold"], ["below"]),
        helper.make_node("Where", ["below", "minus_one", "unordered"], ["lower"]),
        helper.make_node("Where", ["equal", "at_threshold", "lower"], ["not_above"]),
        helper.make_node("Where", ["above", "one", "not_above"], ["Y"]),
    ]


SIGN = Operator("Sign", ("X", "threshold"), infer_shape, reference, body, defaults={"zero": -1})
