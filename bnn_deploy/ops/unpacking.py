"""The part of the function bodies that turns packed weights into +-1 floats with standard operators."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from bnn_deploy.ops.operator import constant


def unpack_nodes(packed: str, count: str, inner_shape: str, signs: str) -> list[NodeProto]:
    """Nodes from uint8 ``packed`` (O, B) to float +-1 ``signs`` (O, *inner_shape).

    Args:
        packed: name of the packed weights.
        count: name of an int64 (1,) value: elements per row.
        inner_shape: name of an int64 (R,) value: how to see the ``count`` elements of a row; one entry may be -1.
        signs: name of the result.

    Runtimes fold these nodes at load time, since packed weights are constants. O is taken with Shape and the last
    Reshape states it, because that is what lets onnx.shape_inference see the output channels.
    """
    return [
        constant("bit_numbers", np.arange(8), np.uint8),
        constant("lowest_bit", 1, np.uint8),
        constant("last_axis", [2], np.int64),
        constant("row_of_bits", [0, -1], np.int64),
        constant("row_start", [0], np.int64),
        constant("row_axis", [1], np.int64),
        constant("two", 2),
        constant("one", 1),
        helper.make_node("Unsqueeze", [packed, "last_axis"], ["packed_column"]),
        helper.make_node("BitShift", ["packed_column", "bit_numbers"], ["shifted"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["shifted", "lowest_bit"], ["bits_of_bytes"]),
        helper.make_node("Reshape", ["bits_of_bytes", "row_of_bits"], ["padded_bits"]),
        helper.make_node("Slice", ["padded_bits", "row_start", count, "row_axis"], ["bits"]),
        helper.make_node("Cast", ["bits"], ["float_bits"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float_bits", "two"], ["doubled_bits"]),
        helper.make_node("Sub", ["doubled_bits", "one"], ["flat_signs"]),
        helper.make_node("Shape", [packed], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", inner_shape], ["sign_shape"], axis=0),
        helper.make_node("Reshape", ["flat_signs", "sign_shape"], [signs]),
    ]
