"""What each packed operator asks of the kernel table (``targets.table``): its call as a specification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from tvm import relax

from bnn_deploy.bits import plane_axis
from bnn_deploy.dialect.operators import ConvolutionAttributes
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import operator_name, static_shape
from bnn_deploy.targets.kernels.epilogue import STEPS, Epilogue, ImageOperand
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    SignPackSpecification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, ShiftWordsSpecification


def pack_specification(value: relax.Call, layer: str) -> SignPackSpecification | TernaryPackSpecification:
    """Of ``bnn.sign_pack`` or ``bnn.ternary_pack``.

    Raises:
        CompileError: a threshold varies over space; names the ``layer``.
    """
    shape = static_shape(value.args[0])
    batch, height, width, channels = shape if len(shape) == 4 else (*_rows_and_columns(shape[:-1]), shape[-1])
    if operator_name(value) == "bnn.ternary_pack":
        return TernaryPackSpecification(batch, height, width, channels)
    given = static_shape(value.args[1])
    aligned = (1,) * (len(shape) - len(given)) + given
    if any(extent != 1 for extent in aligned[1:-1]) or (len(shape) != 4 and aligned[0] != 1):
        raise CompileError(
            f"Layer '{layer}' compares with a threshold of shape {given}, which varies over space; "
            "a threshold may vary over channels and images only."
        )
    threshold = (aligned[0], 1, 1, aligned[-1])
    return SignPackSpecification(batch, height, width, channels, threshold, int(value.attrs["zero"]))


def many_packs_specification(value: relax.Call) -> MultiSignPackSpecification | MultiTernaryPackSpecification:
    """Of ``bnn.sign_pack_many`` or ``bnn.ternary_pack_many``."""
    batch, height, width, channels = static_shape(value.args[0])
    planes = static_shape(value.args[1])[0]
    if operator_name(value) == "bnn.ternary_pack_many":
        return MultiTernaryPackSpecification(batch, height, width, channels, planes)
    return MultiSignPackSpecification(batch, height, width, channels, planes, int(value.attrs["zero"]))


def shift_specification(value: relax.Call) -> ShiftWordsSpecification:
    """Of ``bnn.shift_words``."""
    segments = tuple(
        (int(first), int(count), int(rows), int(columns)) for first, count, rows, columns in value.attrs["segments"]
    )
    batch, height, width, words = static_shape(value.args[0])
    return ShiftWordsSpecification(batch, height, width, words, segments, int(value.attrs["block_rows"]))


def layer_specification(value: relax.Call) -> ConvolutionSpecification:
    """Of ``bnn.packed_conv2d``, ``bnn.packed_tap_scaled_conv2d``, ``bnn.epilogue_conv2d`` or ``bnn.packed_linear``."""
    if operator_name(value) == "bnn.packed_linear":
        return _linear_specification(value)
    specification = convolution_specification(value)
    return (
        replace(specification, epilogue=_epilogue(value))
        if operator_name(value) == "bnn.epilogue_conv2d"
        else specification
    )


def convolution_specification(value: relax.Call) -> ConvolutionSpecification:
    """Of a packed convolution, without what follows it."""
    attributes = ConvolutionAttributes.of(value)
    batch, height, *_, width, _ = static_shape(value.args[0])
    return ConvolutionSpecification(
        batch=batch,
        height=height,
        width=width,
        in_channels=attributes.in_channels,
        out_channels=static_shape(value.args[1])[0],
        kernel_shape=attributes.kernel_shape,
        strides=attributes.strides,
        pads=attributes.pads,
        group=attributes.group,
        ternary=bool(attributes.ternary),
        tap_scaled=operator_name(value) == "bnn.packed_tap_scaled_conv2d",
        block_rows=attributes.block_rows,
    )


def _linear_specification(value: relax.Call) -> ConvolutionSpecification:
    ternary = bool(int(value.attrs["ternary"]))
    leading = list(static_shape(value.args[0])[:-1])
    if ternary:
        del leading[plane_axis(len(leading))]
    batch, height, width = _rows_and_columns(leading)
    return ConvolutionSpecification(
        batch=batch,
        height=height,
        width=width,
        in_channels=int(value.attrs["in_features"]),
        out_channels=static_shape(value.args[1])[0],
        ternary=ternary,
    )


def _rows_and_columns(leading: Sequence[int]) -> tuple[int, int, int]:
    """Anything but an image as (N, 1, W): rows of channels, with the planes of three-valued words where they are."""
    return prod(leading[:2]), 1, prod(leading[2:])


def _epilogue(value: relax.Call) -> Epilogue:
    attributes = value.attrs
    return Epilogue(
        images=tuple(ImageOperand(*(int(number) for number in operand)) for operand in attributes["images"]),
        vectors=int(attributes["vectors"]),
        steps=tuple((STEPS[int(name)], int(left), int(right)) for name, left, right in attributes["steps"]),
        stores=bool(attributes["stores"]),
        planes=int(attributes["planes"]),
        zero=int(attributes["zero"]),
    )
