"""``Sign(X, threshold) -> Y``: +1 above the threshold, else -1 (BiMLP Eq. 1, BCDNet Eq. 11).

At the threshold the attribute ``zero`` (-1 by default, or +1: QONNX's convention) is the answer. Comparison is
IEEE 754: -0.0 equals 0.0, and NaN, on either side, gives -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.operator import Attributes, Operator, Shape, attribute_constant, constant, require


def infer_shape(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    """X ``(...)``, threshold broadcastable to X -> the shape of X."""
    values, threshold = shapes
    require(attributes["zero"] in (-1, 1), f"Sign: attribute zero must be -1 or +1, found {attributes['zero']}.")
    try:
        result = np.broadcast_shapes(values, threshold)
    except ValueError:
        result = None
    if result != tuple(values):
        raise ModelFileError(f"Sign: the threshold of shape {threshold} does not broadcast to X of shape {values}.")
    return result


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """float32 X and threshold -> float32 of -1 and +1, shape of X."""
    values, threshold = arrays
    infer_shape([values.shape, threshold.shape], attributes)
    positive = values >= threshold if attributes["zero"] == 1 else values > threshold
    return np.where(positive, np.float32(1), np.float32(-1))


def body() -> list[NodeProto]:
    """``Where(X > t or (X == t and zero == 1), 1, -1)``; not ``Sign(X - t)``, which fails for inf - inf."""
    return [
        attribute_constant("zero_value", "zero", is_list=False),
        constant("one_integer", 1, np.int64),
        constant("one", 1),
        constant("minus_one", -1),
        helper.make_node("Equal", ["zero_value", "one_integer"], ["zero_is_positive"]),
        helper.make_node("Greater", ["X", "threshold"], ["above"]),
        helper.make_node("Equal", ["X", "threshold"], ["equal"]),
        helper.make_node("And", ["equal", "zero_is_positive"], ["equal_counts"]),
        helper.make_node("Or", ["above", "equal_counts"], ["positive"]),
        helper.make_node("Where", ["positive", "one", "minus_one"], ["Y"]),
    ]


SIGN = Operator("Sign", ("X", "threshold"), infer_shape, reference, body, defaults={"zero": -1})
