"""``BinaryConv(X, W) -> Y``: 2-D convolution of a -1/0/+1 image with packed +-1 weights; exact integers as float32.

Zero padding contributes 0 (not +1, not -1). Any scale is an ordinary Mul after it, so that Y is exact on every
runtime: integers up to 2**24 are exact in float32 whatever the order of the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from bnn_deploy.bits import packed_size, unpack_bits
from bnn_deploy.ops.operator import (
    Attributes,
    Operator,
    Shape,
    attribute_constant,
    constant,
    require,
    require_three_valued,
    with_references,
)
from bnn_deploy.ops.unpacking import unpack_nodes

ATTRIBUTES = {"kernel_shape": 2, "strides": 2, "pads": 4, "group": 1, "in_channels": 1}
LARGEST_DOT_PRODUCT = 2**24


def weight_bits(attributes: Attributes) -> int:
    """K: weights per output channel, ``kh * kw * (in_channels / group)``."""
    height, width = attributes["kernel_shape"]
    return int(height * width * (attributes["in_channels"] // attributes["group"]))


def infer_shape(shapes: Sequence[Shape], attributes: Attributes, operator: str = "BinaryConv") -> Shape:
    """X ``(N, C, H, W)``, W ``(O, ceil(K/8))`` -> ``(N, O, Ho, Wo)``, Ho = floor((H + top + bottom - kh) / sh) + 1."""
    values, weights = shapes[0], shapes[1]
    require(len(values) == 4, f"{operator}: X must be (N, C, H, W), found shape {values}.")
    require(len(weights) == 2, f"{operator}: W must be (O, bytes), found shape {weights}.")
    for name, smallest in (("kernel_shape", 1), ("strides", 1), ("pads", 0)):
        require(min(attributes[name]) >= smallest, f"{operator}: {name} must be >= {smallest}, got {attributes[name]}.")
    channels, group, outputs = attributes["in_channels"], attributes["group"], weights[0]
    require(values[1] == channels, f"{operator}: X has {values[1]} channels, but in_channels is {channels}.")
    require(
        group >= 1 and channels >= 1 and channels % group == 0 and outputs % group == 0,
        f"{operator}: group {group} must divide in_channels {channels} and the {outputs} output channels.",
    )
    bits = weight_bits(attributes)
    require(bits < LARGEST_DOT_PRODUCT, f"{operator}: {bits} weights per output are not exact in float32 (2**24 are).")
    require(
        weights[1] == packed_size(bits),
        f"{operator}: W has {weights[1]} bytes per output, expected {packed_size(bits)} for {bits} weights.",
    )
    (height, width), (row_step, column_step) = attributes["kernel_shape"], attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    rows, columns = values[2] + top + bottom - height, values[3] + left + right - width
    require(
        rows >= 0 and columns >= 0, f"{operator}: the kernel {height}x{width} is larger than the padded X {values}."
    )
    return (values[0], outputs, rows // row_step + 1, columns // column_step + 1)


def tap_products(
    values: np.ndarray, weights: np.ndarray, attributes: Attributes, operator: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Per kernel tap (row-major): its number and the integer products summed over channels, float64 (N, O, Ho, Wo)."""
    batch, outputs, rows, columns = infer_shape([values.shape, weights.shape], attributes, operator)
    require_three_valued(operator, values)
    (height, width), (row_step, column_step) = attributes["kernel_shape"], attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    group = attributes["group"]
    group_channels = attributes["in_channels"] // group
    signs = unpack_bits(weights, weight_bits(attributes)).astype(np.float64)
    signs = signs.reshape(group, outputs // group, height * width, group_channels)
    padded = np.pad(values.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    for tap in range(height * width):
        row, column = divmod(tap, width)
        window = padded[
            :, :, row : row + rows * row_step : row_step, column : column + columns * column_step : column_step
        ]
        window = window[:, :, :rows, :columns].reshape(batch, group, group_channels, rows * columns)
        # float64 holds these integers exactly and makes numpy use a fast matrix product.
        yield tap, (signs[:, :, tap] @ window).reshape(batch, outputs, rows, columns)


def reference(arrays: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    """X float32 (N, C, H, W) of -1, 0, +1; W uint8 (O, ceil(K/8)) -> float32 (N, O, Ho, Wo) of exact integers."""
    values, weights = arrays
    products = [product for _, product in tap_products(values, weights, attributes, "BinaryConv")]
    total: np.ndarray = np.sum(products, axis=0)
    return total.astype(np.float32)


def kernel_nodes() -> list[NodeProto]:
    """Body nodes from packed W to float +-1 ``kernel`` (O, C/group, kh, kw)."""
    return [
        attribute_constant("kernel_dims", "kernel_shape", is_list=True),
        attribute_constant("channels", "in_channels", is_list=False),
        attribute_constant("groups", "group", is_list=False),
        constant("first_axis", [0], np.int64),
        constant("rest", [-1], np.int64),
        helper.make_node("Div", ["channels", "groups"], ["group_channels"]),
        helper.make_node("Unsqueeze", ["group_channels", "first_axis"], ["group_channels_dim"]),
        helper.make_node("Concat", ["kernel_dims", "group_channels_dim"], ["weight_dims"], axis=0),
        helper.make_node("ReduceProd", ["weight_dims"], ["weight_count"], keepdims=1),
        helper.make_node("Concat", ["kernel_dims", "rest"], ["inner_shape"], axis=0),
        *unpack_nodes("W", "weight_count", "inner_shape", "kernel_channels_last"),
        helper.make_node("Transpose", ["kernel_channels_last"], ["kernel"], perm=[0, 3, 1, 2]),
    ]


def convolution(kernel: str) -> NodeProto:
    """The standard Conv of X with ``kernel`` under the calling node's attributes."""
    node = helper.make_node("Conv", ["X", kernel], ["Y"])
    lists = {name: (name, AttributeProto.INTS) for name in ("kernel_shape", "strides", "pads")}
    return with_references(node, {**lists, "group": ("group", AttributeProto.INT)})


def body() -> list[NodeProto]:
    """Unpack W to +-1 floats, then Conv."""
    return [*kernel_nodes(), convolution("kernel")]


BINARY_CONV = Operator(
    "BinaryConv", ("X", "W"), infer_shape, reference, body, required=ATTRIBUTES, weight_bits=weight_bits
)
