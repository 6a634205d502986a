"""``TapScaledBinaryConv(X, W, scale) -> Y``: binary convolution with one scale per (output channel, kernel tap).

``y = sum over taps of scale[o, tap] * (integer dot product of that tap)``: what the released BiMLP code computes in its
1x7 and 7x1 layers, whose weights are scaled by a mean over input channels only. Zero padding contributes 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from bnn_deploy.ops.binary_conv import ATTRIBUTES, convolution, kernel_nodes, tap_products, weight_bits
from bnn_deploy.ops.binary_conv import infer_shape as infer_conv_shape
from bnn_deploy.ops.operator import Attributes, Operator, Shape, constant, require

NAME = "TapScaledBinaryConv"


def infer_shape(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    """As BinaryConv, with scale ``(O, kh * kw)``."""
    result = infer_conv_shape(shapes, attributes, NAME)
    height, width = attributes["kernel_shape"]
    expected = (shapes[1][0], height * width)
    require(tuple(shapes[2]) == expected, f"{NAME}: scale must have shape {expected}, found {tuple(shapes[2])}.")
    return result


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """X and W as for BinaryConv, scale float32 (O, kh * kw) -> float32 (N, O, Ho, Wo): float64 sum, rounded once."""
    values, weights, scale = arrays
    infer_shape([values.shape, weights.shape, scale.shape], attributes)
    factors = scale.astype(np.float64)[:, :, None, None]
    products = [factors[:, tap] * product for tap, product in tap_products(values, weights, attributes, NAME)]
    total: np.ndarray = np.sum(products, axis=0)
    return total.astype(np.float32)


def body() -> list[NodeProto]:
    """Unpack W to +-1 floats (O, C/group, kh, kw), multiply by scale seen as (O, 1, kh, kw), then Conv."""
    return [
        *kernel_nodes(),
        constant("keep_and_one", [0, 1], np.int64),
        helper.make_node("Concat", ["keep_and_one", "kernel_dims"], ["scale_shape"], axis=0),
        # (O, kh*kw) -> (O, 1, kh, kw): 0 keeps O; kh * kw elements remain for the rest.
        helper.make_node("Reshape", ["scale", "scale_shape"], ["kernel_scale"]),
        helper.make_node("Mul", ["kernel", "kernel_scale"], ["scaled_kernel"]),
        convolution("scaled_kernel"),
    ]


TAP_SCALED_BINARY_CONV = Operator(
    NAME, ("X", "W", "scale"), infer_shape, reference, body, required=ATTRIBUTES, weight_bits=weight_bits
)
