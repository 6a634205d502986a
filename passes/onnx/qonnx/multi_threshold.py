"""MultiThreshold: how many of a channel's thresholds a value reaches, times a scale, plus a bias.

Before::

    y = qonnx::MultiThreshold(x, T, out_scale=2.0, out_bias=-1.0, data_layout="NCHW")      T: (C, 1)
After::

    y = Where(GreaterOrEqual(x, T'), 1, -1)      T' = T of shape (C, 1, 1)
Before::

    y = qonnx::MultiThreshold(x, T)      T: (C, 15)
After::

    y = ReduceSum(Cast(GreaterOrEqual(Unsqueeze(x, -1), T'), to=FLOAT), -1)

One threshold makes two values, which the Where holds ready-made. Two and three make a sum of as many Where of 1 and 0: an
elementwise subgraph, in which three values can be recognised. Scale and bias are then a Mul and an Add.
The channel's axis is that of the C in ``data_layout``; without one QONNX goes by the number of axes: NC, NWC, NCHW, else 1.
Not handled: thresholds that are computed, thresholds per channel for a value of unknown rank.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from bnn_deploy.passes.onnx.qonnx.replacement import Replacement
from bnn_deploy.passes.onnx.qonnx.two_valued import two_valued

# Up to here the sum is spelt out: three thresholds are two bits.
MOST_TERMS = 3
LAYOUT_OF_RANK = {2: "NC", 3: "NWC", 4: "NCHW"}


def expand_multi_threshold(write: Replacement) -> str:
    """Write the standard nodes of one MultiThreshold node.

    Returns:
        The value that takes the place of the node's output.

    Raises:
        ModelFileError: inputs or types are wrong, the thresholds are computed or do not fit the value's channels, or the
            channel's axis cannot be told; names the node.
    """
    value, thresholds = write.inputs(2)
    kind = write.float_type(value)
    array = _thresholds(write, value, thresholds)
    scale = np.float32(write.attribute("out_scale", 1.0))
    bias = np.float32(write.attribute("out_bias", 0.0))
    count = array.shape[-1]
    if count == 1:
        # float32, rounded once as the product and the sum would be: the products are exact.
        return two_valued(write, value, array[..., 0], float(bias), float(scale + bias), kind)
    if count <= MOST_TERMS:
        terms = [two_valued(write, value, array[..., k], 0.0, 1.0, kind) for k in range(count)]
        result = terms[0]
        for term in terms[1:]:
            result = write.add("Add", result, term)
    else:
        last = write.new_constant(np.asarray([-1]), "last", TensorProto.INT64)
        reached = write.add(
            "GreaterOrEqual", write.add("Unsqueeze", value, last), write.new_constant(array, "thresholds", kind)
        )
        result = write.add("ReduceSum", write.add("Cast", reached, to=kind), last, named=True, keepdims=0)
    if scale != 1:
        result = write.add("Mul", result, write.new_constant(scale, "out_scale", kind))
    return write.add("Add", result, write.new_constant(bias, "out_bias", kind)) if bias != 0 else result


def _thresholds(write: Replacement, value: str, name: str) -> np.ndarray:
    """The thresholds, reshaped so that all but the last axis broadcast to the value."""
    array = write.constant(name, "thresholds")
    if array.ndim != 2 or 0 in array.shape:
        raise write.refusal(f"has thresholds of shape {array.shape}, which must be (channels, number of thresholds)")
    if array.dtype.kind not in "fiu" or not np.array_equal(array, array.astype(np.float32), equal_nan=True):
        raise write.refusal(f"has thresholds of type {array.dtype}, which float32 does not hold exactly")
    channels, count = array.shape
    if channels == 1:
        return array.ravel()
    shape = write.scope.shapes.get(value)
    layout = write.attribute("data_layout", "")
    if shape is None:
        raise write.refusal(
            f"has thresholds for {channels} channels, but the file does not give the shape of {value!r}; export with shapes"
        )
    layout = layout or LAYOUT_OF_RANK.get(len(shape), "")
    axis = layout.index("C") if "C" in layout else 1
    if axis >= len(shape) or shape[axis] not in (None, channels):
        raise write.refusal(
            f"has thresholds for {channels} channels on axis {axis} of {value!r}, whose shape is "
            f"({', '.join('?' if size is None else str(size) for size in shape)})"
        )
    return array.reshape(channels, *[1] * (len(shape) - 1 - axis), count)
