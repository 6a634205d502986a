"""``BinaryLinear(X, W) -> Y``: rows of -1/0/+1 times packed +-1 weights; exact integers as float32.

The scale and the bias, if any, are an ordinary Mul and Add after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from bnn_deploy.bits import packed_size, unpack_bits
from bnn_deploy.ops.binary_conv import LARGEST_DOT_PRODUCT
from bnn_deploy.ops.operator import (
    Attributes,
    Operator,
    Shape,
    attribute_constant,
    constant,
    require,
    require_three_valued,
)
from bnn_deploy.ops.unpacking import unpack_nodes

NAME = "BinaryLinear"


def weight_bits(attributes: Attributes) -> int:
    """K: weights per output, ``in_features``."""
    return int(attributes["in_features"])


def infer_shape(shapes: Sequence[Shape], attributes: Attributes) -> Shape:
    """X ``(..., K)``, W ``(O, ceil(K/8))`` -> ``(..., O)``."""
    values, weights = shapes
    features = weight_bits(attributes)
    require(len(values) >= 1, f"{NAME}: X needs at least one axis.")
    require(len(weights) == 2, f"{NAME}: W must be (O, bytes), found shape {tuple(weights)}.")
    require(
        1 <= features < LARGEST_DOT_PRODUCT,
        f"{NAME}: in_features must be between 1 and 2**24 - 1 (exact in float32), found {features}.",
    )
    require(values[-1] == features, f"{NAME}: X has {values[-1]} features, but in_features is {features}.")
    require(
        weights[1] == packed_size(features),
        f"{NAME}: W has {weights[1]} bytes per output, expected {packed_size(features)} for {features} weights.",
    )
    return (*values[:-1], weights[0])


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """X float32 (..., K) of -1, 0, +1; W uint8 (O, ceil(K/8)) -> float32 (..., O) of exact integers."""
    values, weights = arrays
    infer_shape([values.shape, weights.shape], attributes)
    require_three_valued(NAME, values)
    # float64 holds these integers exactly and makes numpy use a fast matrix product.
    signs = unpack_bits(weights, weight_bits(attributes)).astype(np.float64)
    total: np.ndarray = values.astype(np.float64) @ signs.T
    return total.astype(np.float32)


def body() -> list[NodeProto]:
    """Unpack W to +-1 floats (O, K), then MatMul with its transpose."""
    return [
        attribute_constant("features", "in_features", is_list=False),
        constant("first_axis", [0], np.int64),
        helper.make_node("Unsqueeze", ["features", "first_axis"], ["weight_count"]),
        constant("inner_shape", [-1], np.int64),
        *unpack_nodes("W", "weight_count", "inner_shape", "signs"),
        helper.make_node("Transpose", ["signs"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["X", "columns"], ["Y"]),
    ]


BINARY_LINEAR = Operator(
    NAME, ("X", "W"), infer_shape, reference, body, required={"in_features": 1}, weight_bits=weight_bits
)
