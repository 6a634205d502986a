"""Take a Conv apart: weights, geometry, bias.

Before::

    Conv(x (N, C, L), w (O, C, 3)) {strides: [2], auto_pad: SAME_UPPER}         L = 9
After::

    LayerForm(x, weights (O, 3, C), Geometry([1, 3], strides [1, 2], pads [0, 1, 0, 1]))

Not handled, and said: dilation, three spatial dimensions, SAME padding of an image whose size is not known, negative
padding, and a bias computed at run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bnn_deploy.passes.onnx.graph import constant_of, integers, optional_input, required_input, static_shape
from bnn_deploy.passes.onnx.layers.layer_form import Geometry, LayerForm, check_extent, computed_by, constant_weights


def read_convolution(node: ir.Node) -> LayerForm:
    """The form of a standard Conv; its ``reasons`` say what a binary convolution cannot do."""
    form = LayerForm(node, activation=required_input(node))
    array = constant_weights(form, node.inputs[1])
    if array is None:
        return form
    if array.ndim < 3:
        form.reasons.append(f"its kernel is of shape {array.shape}, which is none of a convolution")
        return form
    outputs, depth, *kernel = array.shape
    spatial = len(kernel)
    # Packing order of a row is (kh, kw, c).
    form.weights = np.moveaxis(array, 1, -1).reshape(outputs, math.prod(kernel), depth)
    if spatial > 2:
        form.reasons.append(f"its kernel has {spatial} dimensions, and only one or two run on bits")
        return form
    group = node.attributes.get_int("group", 1)
    if group < 1 or outputs % group:
        form.reasons.append(f"its {outputs} output channels do not divide into {group} groups")
        return form
    strides, dilations = (integers(node, name, [1] * spatial) for name in ("strides", "dilations"))
    if len(strides) != spatial or len(dilations) != spatial or min(*strides, *dilations) < 1:
        form.reasons.append(f"its strides {strides} and dilations {dilations} do not fit its kernel")
        return form
    # A dilation along an extent of one kernel position moves nothing.
    if any(dilation != 1 and extent != 1 for dilation, extent in zip(dilations, kernel, strict=True)):
        form.reasons.append(f"its kernel is dilated by {dilations}")
    check_extent(form, 1, depth * group)
    pads = padding_of(node, kernel)
    if isinstance(pads, str):
        form.reasons.append(pads)
        return form
    form.geometry = _geometry(kernel, strides, pads, group, depth * group)
    if (bias := optional_input(node, 2)) is not None:
        array = constant_of(bias)
        if array is None:
            form.reasons.append(f"its bias is computed at run time from {computed_by(bias)}")
        else:
            form.bias = array.astype(np.float64).reshape(-1)
    return form


def read_transposed_convolution(node: ir.Node) -> LayerForm:
    """The form of a ConvTranspose, which is never binary; its weights are read for the report."""
    form = LayerForm(node, required_input(node), reasons=["transposed convolutions do not run on bits"])
    kernel = constant_weights(form, node.inputs[1])
    if kernel is not None and kernel.ndim >= 2:
        # (C, O / group, positions...): outputs first, as everywhere.
        form.weights = np.moveaxis(kernel, 0, -1).reshape(kernel.shape[1], math.prod(kernel.shape[2:]), kernel.shape[0])
    return form


def _geometry(
    kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], group: int, in_channels: int
) -> Geometry:
    """Of an image, or of a sequence, which is an image of one row."""
    if len(kernel) == 1:
        return Geometry((1, kernel[0]), (1, strides[0]), (0, pads[0], 0, pads[1]), group, in_channels, flat=True)
    (height, width), (down, right), (top, left, bottom, end) = kernel, strides, pads
    return Geometry((height, width), (down, right), (top, left, bottom, end), group, in_channels)


def padding_of(node: ir.Node, kernel: Sequence[int]) -> list[int] | str:
    """[begin of each axis, end of each axis] of a Conv whose kernel has these extents, or a reason why they are not known."""
    spatial = len(kernel)
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * (2 * spatial)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        pads = integers(node, "pads", [0] * (2 * spatial))
        return (
            pads
            if len(pads) == 2 * spatial and min(pads) >= 0
            else f"its padding {pads} is not one of zeros around the image"
        )
    shape = static_shape(node.inputs[0])
    extents = [] if shape is None else [extent for extent in shape[2:] if extent is not None]
    if len(extents) != spatial:
        return f"its padding ({mode}) depends on the size of the image, which is not fixed in the file"
    strides = integers(node, "strides", [1] * spatial)
    dilations = integers(node, "dilations", [1] * spatial)
    begin, end = [], []
    for extent, stride, taps, dilation in zip(extents, strides, kernel, dilations, strict=True):
        # ONNX: as many outputs as ceil(extent / stride); what does not divide by two goes to the end for SAME_UPPER.
        needed = (-(-extent // stride) - 1) * stride + (taps - 1) * dilation + 1
        total = max(needed - extent, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin + end
