"""to_channels_last: images are NHWC between one transpose in and one out, whatever the operators between."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, convolution, geometry, operators, per_channel, sign, take

IMAGE = (2, 4, 6, 8)
LAST = [0, 2, 3, 1]
FIRST = [0, 3, 1, 2]
SLOPE = [1.0, 2.0, 3.0, 4.0]


def to_last(x: relax.Expr) -> relax.Expr:
    return relax.op.permute_dims(x, LAST)


def to_first(x: relax.Expr) -> relax.Expr:
    return relax.op.permute_dims(x, FIRST)


WEIGHT = np.arange(5 * 4 * 3 * 3, dtype="float32").reshape(5, 4, 3, 3)

# Channels-first operator, and what stands between the two transposes afterwards.
RULES = {
    "conv2d": (
        lambda x: relax.op.nn.conv2d(x, constant(WEIGHT), strides=[2, 1], padding=[1, 0, 1, 2]),
        lambda x: relax.op.nn.conv2d(
            x,
            constant(WEIGHT.transpose(2, 3, 1, 0)),
            strides=[2, 1],
            padding=[1, 0, 1, 2],
            data_layout="NHWC",
            kernel_layout="HWIO",
        ),
    ),
    "binary conv": (
        lambda x: convolution(sign(x, per_channel(SLOPE)), 4, geometry(4, (3, 3), (2, 1), (1, 0, 1, 2))),
        lambda x: convolution(
            sign(x, constant(np.reshape(SLOPE, (1, 1, 1, 4)))),
            4,
            geometry(4, (3, 3), (2, 1), (1, 0, 1, 2), channels_last=1),
        ),
    ),
    "max pool": (
        lambda x: relax.op.nn.max_pool2d(x, [3, 2], [2, 2], [1, 0, 1, 0]),
        lambda x: relax.op.nn.max_pool2d(x, [3, 2], [2, 2], [1, 0, 1, 0], layout="NHWC"),
    ),
    "average pool": (
        lambda x: relax.op.nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1], count_include_pad=True),
        lambda x: relax.op.nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1], count_include_pad=True, layout="NHWC"),
    ),
    "take": (
        lambda x: relax.op.take(x, constant([3, 0, 2, 2], "int32"), axis=2, mode="clip"),
        lambda x: relax.op.take(x, constant([3, 0, 2, 2], "int32"), axis=1, mode="clip"),
    ),
    "prelu": (
        lambda x: relax.op.nn.prelu(x, constant(SLOPE), axis=1),
        lambda x: relax.op.nn.prelu(x, constant(SLOPE), axis=3),
    ),
    "prelu with one slope": (
        lambda x: relax.op.nn.prelu(x, constant([0.25]), axis=1),
        lambda x: relax.op.nn.prelu(x, constant([0.25] * 4), axis=3),
    ),
    "group norm": (
        lambda x: relax.op.nn.group_norm(x, constant(SLOPE), constant(SLOPE), 2, 1, [2, 3], 1e-5),
        lambda x: relax.op.nn.group_norm(x, constant(SLOPE), constant(SLOPE), 2, 3, [1, 2], 1e-5),
    ),
    "softmax of channels": (lambda x: relax.op.nn.softmax(x, axis=-3), lambda x: relax.op.nn.softmax(x, axis=3)),
    "concat": (lambda x: relax.op.concat([x, x], axis=1), lambda x: relax.op.concat([x, x], axis=3)),
    "slice": (lambda x: take(x, -1, 1, 7, 2), lambda x: take(x, 2, 1, 7, 2)),
    "mean": (
        lambda x: relax.op.mean(x, axis=[-2], keepdims=True),
        lambda x: relax.op.mean(x, axis=[1], keepdims=True),
    ),
    "scale per channel": (
        lambda x: relax.op.multiply(x, constant(np.reshape(SLOPE, (4, 1, 1)))),
        lambda x: relax.op.multiply(x, constant(np.reshape(SLOPE, (1, 1, 1, 4)))),
    ),
    "constant over width": (
        lambda x: relax.op.add(constant(np.arange(8.0)), x),
        lambda x: relax.op.add(constant(np.arange(8.0).reshape(1, 1, 8, 1)), x),
    ),
    "one number": (
        lambda x: relax.op.multiply(x, constant(2.0)),
        lambda x: relax.op.multiply(x, constant([[[[2.0]]]])),
    ),
    "clip": (lambda x: relax.op.clip(x, -1, 1), lambda x: relax.op.clip(x, -1, 1)),
}


@pytest.mark.parametrize("name", RULES)
def test_operator_moves_to_channels_last(name: str) -> None:
    """Breaks: an operator reads the wrong axis after the layout change, or keeps two transposes around itself."""
    first, last = RULES[name]
    before = build([IMAGE], lambda emit, x: first(x))
    expected = build([IMAGE], lambda emit, x: to_first(emit(last(emit(to_last(x))))))
    tvm.ir.assert_structural_equal(to_channels_last(before), expected)


@pytest.mark.parametrize("name", RULES)
def test_operator_computes_the_same(name: str) -> None:
    """Breaks: a rule permutes an axis, a weight or a constant wrongly."""
    before = build([IMAGE], lambda emit, x: RULES[name][0](x))
    x = np.random.default_rng(0).integers(-4, 5, IMAGE).astype(float)
    # Whole numbers, so that sums are exact in any order; softmax and group norm divide sums of up to 96 terms, each of them
    # and the sum rounded relative to their size (at most 4 here) by 2**-53: within 100 * 4 * 2**-53 < 1e-13.
    np.testing.assert_allclose(evaluate(to_channels_last(before), x), evaluate(before, x), rtol=1e-13, atol=1e-13)


def test_a_chain_is_transposed_once() -> None:
    """Breaks: every operator pays for two transposes of the image."""

    def chain(emit: object, x: relax.Var) -> relax.Expr:
        y = emit(relax.op.nn.prelu(emit(relax.op.nn.relu(x)), constant(SLOPE), axis=1))
        return relax.op.add(convolution(emit(sign(y)), 4, geometry(4)), y)

    after = operators(to_channels_last(build([IMAGE], chain)))
    assert [name for name in after if name == "relax.permute_dims"] == ["relax.permute_dims"] * 2
    assert after[0] == after[-1] == "relax.permute_dims"


def test_spatial_mean_ends_the_layout() -> None:
    """Breaks: the head is transposed although (N, C) reads the same either way."""
    before = build([IMAGE], lambda emit, x: relax.op.mean(relax.op.nn.relu(x), axis=[2, 3], keepdims=False))
    expected = build([IMAGE], lambda emit, x: relax.op.mean(relax.op.nn.relu(to_last(x)), axis=[1, 2], keepdims=False))
    tvm.ir.assert_structural_equal(to_channels_last(before), expected)


def test_split_keeps_its_parts_channels_last() -> None:
    """Breaks: the parts of a split are taken along the old axis."""

    def body(emit: object, x: relax.Var, axis: int) -> relax.Expr:
        parts = emit(relax.op.split(x, [1], axis=axis))
        return relax.op.add(emit(relax.TupleGetItem(parts, 0)), emit(relax.TupleGetItem(parts, 1)))

    before = build([IMAGE], lambda emit, x: body(emit, x, 1))
    expected = build([IMAGE], lambda emit, x: to_first(emit(body(emit, emit(to_last(x)), 3))))
    tvm.ir.assert_structural_equal(to_channels_last(before), expected)


@pytest.mark.parametrize("shape", [(2, 1, 6, 8), (2, 4, 1, 1)], ids=["one channel", "one pixel"])
def test_layout_of_one_channel_or_pixel_is_a_reshape(shape: tuple[int, ...]) -> None:
    """Breaks: bytes that already lie right are copied, or other bytes are taken to lie right."""
    n, c, h, w = shape

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        y = emit(relax.op.nn.relu(emit(relax.op.reshape(x, (n, h, w, c)))))
        return relax.op.reshape(y, shape)

    before = build([shape], lambda emit, x: relax.op.nn.relu(x))
    tvm.ir.assert_structural_equal(to_channels_last(before), build([shape], expected))


UNSUPPORTED = {
    "grouped conv": lambda x: relax.op.nn.conv2d(x, constant(np.ones((4, 2, 1, 1))), groups=2),
    "batch norm": lambda x: relax.TupleGetItem(
        relax.op.nn.batch_norm(x, *[constant(SLOPE)] * 4, axis=1, training=False), 0
    ),
    "mean of one axis": lambda x: relax.op.broadcast_to(
        relax.op.reshape(relax.op.mean(x, axis=[2], keepdims=False), (2, 4, 1, 8)), IMAGE
    ),
    "flatten and back": lambda x: relax.op.reshape(relax.op.negative(relax.op.reshape(x, (2, -1))), IMAGE),
    "matmul of planes": lambda x: relax.op.matmul(x, constant(np.arange(64.0).reshape(8, 8))),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_operators_stay_channels_first(name: str) -> None:
    """Breaks: an operator without a rule reads an image in the wrong layout."""
    operator = UNSUPPORTED[name]

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        y = emit(to_first(emit(relax.op.abs(emit(to_last(x))))))
        return to_first(emit(relax.op.abs(emit(to_last(emit(operator(y)))))))

    before = build([IMAGE], lambda emit, x: relax.op.abs(emit(operator(emit(relax.op.abs(x))))))
    after = to_channels_last(before)
    tvm.ir.assert_structural_equal(after, build([IMAGE], expected))
    x = np.random.default_rng(0).integers(-4, 5, IMAGE).astype(float)
    np.testing.assert_array_equal(evaluate(after, x), evaluate(before, x))


def test_operand_that_is_no_image_keeps_the_operator_channels_first() -> None:
    """Breaks: a row that is broadcast over an image's width is broadcast over its channels instead."""
    before = build([IMAGE, (6, 8)], lambda emit, x, row: relax.op.add(x, row))
    tvm.ir.assert_structural_equal(to_channels_last(before), before)


def test_rows_have_no_layout() -> None:
    """Breaks: (N, K) or (N, T, K) tensors are permuted."""
    before = build([(2, 4, 6)], lambda emit, x: relax.op.nn.softmax(relax.op.add(x, constant(np.ones(6))), axis=-1))
    tvm.ir.assert_structural_equal(to_channels_last(before), before)
