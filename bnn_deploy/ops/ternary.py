"""``Ternary(X) -> Y``: +1 where X > 0.5, -1 where X < -0.5, else 0 (the released BiMLP code's activation).

Equal to ``rint(clip(x, -1, 1))`` with halves rounded to even: exactly +-0.5 gives 0. NaN gives 0, and Y is never -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from bnn_deploy.ops.operator import Attributes, Operator, Shape, constant


def infer_shape(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    """X ``(...)`` -> the same shape."""
    return tuple(shapes[0])


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """float32 X -> float32 of -1, 0 and +1, shape of X."""
    (values,) = arrays
    return (values > 0.5).astype(np.float32) - (values < -0.5).astype(np.float32)


def body() -> list[NodeProto]:
    """``Where(X > 0.5, 1, Where(X < -0.5, -1, 0))``: comparisons, because Round of NaN is NaN."""
    return [
        constant("half", 0.5),
        constant("minus_half", -0.5),
        constant("one", 1),
        constant("zero", 0),
        constant("minus_one", -1),
        helper.make_node("Greater", ["X", "half"], ["above"]),
        helper.make_node("Less", ["X", "minus_half"], ["below"]),
        helper.make_node("Where", ["below", "minus_one", "zero"], ["lower"]),
        helper.make_node("Where", ["above", "one", "lower"], ["Y"]),
    ]


TERNARY = Operator("Ternary", ("X",), infer_shape, reference, body)
