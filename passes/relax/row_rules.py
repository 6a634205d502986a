"""How each operator reads the rows of its inputs: what has to be known to run a chain of operators block of rows by block.

Everything here is channels last: (N, H, W, C), and (N, H, 2, W, words) of three-valued words; rows are along axis 1. An
operator is *row-local* when a block of its output rows needs, of each input, either just the same share of its rows, or all
of it.
"""

from __future__ import annotations

from enum import Enum

from tvm import relax

from bnn_deploy.dialect.operators import ConvolutionAttributes, is_three_valued
from bnn_deploy.passes.relax.expressions import integers, is_constant, operator_name, static_shape

ROWS_AXIS, _CHANNELS_AXIS, _RANK = 1, 3, 4
_NAMES = (
    "abs add astype clip cos divide equal erf exp greater greater_equal less less_equal log maximum minimum multiply "
    "negative nn.gelu nn.relu nn.silu power rsqrt sigmoid sin sqrt subtract tanh where"
)
_ELEMENTWISE = frozenset(f"relax.{name}" for name in _NAMES.split())
_PACKS = ("bnn.sign_pack", "bnn.ternary_pack")
_BINARY_CONVOLUTIONS = ("bnn.packed_conv2d", "bnn.packed_tap_scaled_conv2d")


class Rows(Enum):
    """What one block of output rows reads of an input."""

    SHARE = "share"  # the same share of its rows: block b of B reads rows b*H/B to (b+1)*H/B
    IMAGE = "image"  # the whole of what it has for one image: (N, 1, 1, C)
    WHOLE = "whole"  # all of it; the kernel is told which block it computes


def is_elementwise(value: relax.Expr) -> bool:
    """Whether each output element depends on the elements at the same place only (constants may broadcast)."""
    return operator_name(value) in _ELEMENTWISE or operator_name(value) == "relax.nn.prelu"


def row_reads(value: relax.Expr) -> list[tuple[relax.Var, Rows]] | None:
    """The variables that a row-local operator reads, and how; None when it is not row-local."""
    if not isinstance(value, relax.Call) or not isinstance(value.ty, relax.TensorType):
        return None
    name = operator_name(value)
    if name in _BINARY_CONVOLUTIONS:
        return _convolution_reads(value)
    if name == "bnn.shift_words":
        return [(value.args[0], Rows.WHOLE)]
    if not _is_image(value):
        return None
    if name in _ELEMENTWISE or name in _PACKS:
        # The bounds of a clip are numbers, not tensors.
        tensors = [argument for argument in value.args if isinstance(argument.ty, relax.TensorType)]
        return _elementwise_reads(tensors, _rows_of(value), static_shape(value)[0])
    local = (
        (name == "relax.nn.prelu" and int(value.attrs.axis) % _RANK == _CHANNELS_AXIS)
        or (name == "relax.mean" and bool(value.attrs.keepdims) and ROWS_AXIS not in _reduced_axes(value))
        or (name == "relax.strided_slice" and min(a % _RANK for a in integers(value.args[1])) > ROWS_AXIS)
        or (name in ("relax.nn.avg_pool2d", "relax.nn.max_pool2d") and _pools_side_by_side(value))
        or (name == "relax.nn.conv2d" and _is_pointwise(value))
    )
    if local:
        shape = static_shape(value.args[0])
        return _elementwise_reads([value.args[0]], shape[ROWS_AXIS], shape[0])
    if name == "relax.concat" and int(value.attrs.axis) % _RANK not in (0, ROWS_AXIS):
        return _elementwise_reads(list(value.args[0].fields), _rows_of(value), static_shape(value)[0])
    return None


def _elementwise_reads(arguments: list[relax.Expr], rows: int, images: int) -> list[tuple[relax.Var, Rows]] | None:
    reads = []
    for argument in arguments:
        shape = static_shape(argument)
        if is_constant(argument):
            # A constant must be the same for all rows and images.
            if any(extent != 1 for extent in ((1,) * (_RANK - len(shape)) + shape)[: ROWS_AXIS + 1]):
                return None
        elif not isinstance(argument, relax.Var) or len(shape) != _RANK or shape[0] != images:
            return None
        elif shape[ROWS_AXIS] == rows:
            reads.append((argument, Rows.SHARE))
        elif shape[ROWS_AXIS] == 1:
            reads.append((argument, Rows.IMAGE))
        else:
            return None
    return reads


def _convolution_reads(value: relax.Call) -> list[tuple[relax.Var, Rows]] | None:
    words = value.args[0]
    attributes = ConvolutionAttributes.of(value)
    if not isinstance(words, relax.Var) or not all(is_constant(a) for a in value.args[1:]):
        return None
    top, _, bottom, _ = attributes.pads
    row_by_row = attributes.kernel_shape[0] == attributes.strides[0] == 1 and top == bottom == 0
    return [(words, Rows.SHARE if row_by_row else Rows.WHOLE)]


def _is_image(value: relax.Call) -> bool:
    planes = operator_name(value) in _PACKS and is_three_valued(value)
    return len(static_shape(value)) == _RANK + planes


def _rows_of(value: relax.Call) -> int:
    return static_shape(value)[ROWS_AXIS]


def _reduced_axes(value: relax.Call) -> list[int]:
    return [int(axis) % _RANK for axis in value.attrs.axis] if value.attrs.axis is not None else [ROWS_AXIS]


def _pools_side_by_side(value: relax.Call) -> bool:
    """Whether windows neither overlap nor reach outside the image, and rows are along axis 1."""
    rows = static_shape(value.args[0])[ROWS_AXIS]
    size, step = int(value.attrs.pool_size[0]), int(value.attrs.strides[0])
    padding, dilation = [int(p) for p in value.attrs.padding], int(value.attrs.dilation[0])
    last = str(value.attrs.layout) == "NHWC"
    return last and size == step and rows % step == 0 and padding[0] == padding[2] == 0 and dilation == 1


def _is_pointwise(value: relax.Call) -> bool:
    kernel_rows = static_shape(value.args[1])[0] if str(value.attrs.kernel_layout) == "HWIO" else 0
    padding = [int(p) for p in value.attrs.padding]
    return (
        str(value.attrs.data_layout) == "NHWC"
        and kernel_rows == int(value.attrs.strides[0]) == 1
        and padding[0] == padding[2] == 0
        and is_constant(value.args[1])
    )
