"""Each operator of packed Relax: what the compiled kernels compute, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm import relax

from tests.exact.networks import assert_same_bits, side_by_side
from tests.passes.networks import constant

op = relax.op
Operator = Callable[[relax.Expr], relax.Expr]
SHAPE = (2, 5, 6, 40)
random = np.random.default_rng(0)


def numbers(*shape: int) -> relax.Expr:
    return constant(random.normal(size=shape))


def image() -> np.ndarray:
    """Normal numbers of all magnitudes, among them zeros of both signs, whole numbers and subnormal ones."""
    x = random.normal(size=SHAPE) * 2.0 ** random.integers(-8, 5, SHAPE)
    special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0**-140, -(2.0**-149), 3.0])
    x = np.where(random.random(SHAPE) < 0.1, random.choice(special, SHAPE), x)
    return x.astype(np.float32)


def channels_first(x: relax.Expr) -> relax.Expr:
    return op.permute_dims(x, [0, 3, 1, 2])


ELEMENTWISE: list[Operator] = [
    lambda x: op.add(x, numbers(40)),
    lambda x: op.add(op.multiply(x, numbers(40)), numbers(40)),
    lambda x: op.subtract(op.multiply(x, x), op.multiply(x, numbers(40))),
    lambda x: op.add(x, constant(0.0)),
    lambda x: op.multiply(x, constant(1.0)),
    lambda x: op.divide(x, numbers(40)),
    lambda x: op.divide(numbers(40), op.add(op.abs(x), constant(0.25))),
    lambda x: op.divide(x, constant(4.0)),
    lambda x: op.maximum(x, numbers(40)),
    lambda x: op.minimum(x, op.negative(x)),
    lambda x: op.nn.relu(x),
    lambda x: op.clip(x, -0.75, 1.5),
    lambda x: op.nn.prelu(x, numbers(40), axis=3),
    lambda x: op.nn.leakyrelu(x, 0.01),
    lambda x: op.abs(x),
    lambda x: op.sign(x),
    lambda x: op.floor(x),
    lambda x: op.ceil(x),
    lambda x: op.round(x),
    lambda x: op.sqrt(op.abs(x)),
    lambda x: op.rsqrt(op.add(op.abs(x), constant(0.5))),
    lambda x: op.square(x),
    lambda x: op.power(x, constant(2.0)),
    lambda x: op.where(op.greater(x, numbers(40)), x, op.negative(x)),
    lambda x: op.where(op.less_equal(x, constant(0.0)), numbers(40), x),
    lambda x: op.astype(op.greater_equal(x, constant(0.5)), "float32"),
]
FUNCTIONS: list[Operator] = [
    lambda x: op.sin(x),
    lambda x: op.cos(op.multiply(x, constant(1000.0))),
    lambda x: op.sin(op.multiply(x, constant(3.0e7))),
    lambda x: op.exp(x),
    lambda x: op.exp(op.multiply(x, constant(30.0))),
    lambda x: op.sigmoid(x),
    lambda x: op.tanh(x),
    lambda x: op.nn.silu(x),
    lambda x: op.nn.gelu_tanh(x),
]
MOVEMENT: list[Operator] = [
    channels_first,
    lambda x: op.strided_slice(x, [1, 3], [0, -8], [4, 2**31 - 1], [2, 1]),
    lambda x: op.concat([x, op.negative(x)], axis=3),
    lambda x: relax.TupleGetItem(op.split(x, 5, axis=3), 3),
    lambda x: op.take(x, relax.const(np.array([3, 0, 3]), "int64"), axis=2),
    lambda x: op.tile(x, (1, 1, 2, 1)),
    lambda x: op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], "constant", 0.5),
    lambda x: op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], "reflect"),
    lambda x: op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], "replicate"),
    lambda x: op.expand_dims(x, 1),
]
REDUCTIONS: list[Operator] = [
    lambda x: op.sum(x, [1, 2]),
    lambda x: op.sum(op.multiply(x, x), [3]),
    lambda x: op.mean(x, [3], keepdims=True),
    lambda x: op.mean(x, [2], keepdims=True),
    lambda x: op.mean(op.add(op.multiply(x, numbers(40)), x), [1, 2], keepdims=False),
    lambda x: op.max(x, [3]),
    lambda x: op.min(x, [1, 3]),
    lambda x: op.prod(x, [2]),
    lambda x: op.variance(x, [2, 3]),
    lambda x: op.nn.softmax(x, axis=-1),
    lambda x: op.nn.softmax(x, axis=1),
    lambda x: op.nn.layer_norm(x, numbers(40), numbers(40), axes=[-1]),
    lambda x: op.nn.group_norm(channels_first(x), numbers(40), numbers(40), 8, 1, [2, 3], 0.01),
    lambda x: op.nn.instance_norm(channels_first(x), numbers(40), numbers(40), 1, [2, 3], 0.01),
    lambda x: op.nn.max_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1], layout="NHWC"),
    lambda x: op.nn.max_pool2d(x, [3, 2], [1, 2], layout="NHWC", ceil_mode=True),
    lambda x: op.nn.max_pool1d(op.reshape(x, (2, 40, 30)), [3], [2], [1, 0]),
    lambda x: op.nn.avg_pool1d(op.reshape(x, (2, 40, 30)), [3], [2], [1, 1]),
    lambda x: op.nn.avg_pool2d(x, [2, 2], [2, 2], layout="NHWC"),
    lambda x: op.nn.avg_pool2d(x, [3, 3], [2, 1], [1, 1, 0, 1], layout="NHWC"),
    lambda x: op.nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1], layout="NHWC", count_include_pad=True),
    lambda x: op.nn.avg_pool2d(x, [2, 2], [2, 2], layout="NHWC", ceil_mode=True),
    lambda x: op.nn.adaptive_avg_pool2d(x, [2, 4], layout="NHWC"),
    lambda x: op.nn.adaptive_avg_pool2d(x, [1, 1], layout="NHWC"),
]


def real_convolution(outputs: int, kernel: tuple[int, int], groups: int = 1, **geometry_of: object) -> Operator:
    weight = numbers(*kernel, SHAPE[3] // groups, outputs)
    layouts = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
    return lambda x: op.nn.conv2d(x, weight, groups=groups, **layouts, **geometry_of)


PRODUCTS: list[Operator] = [
    real_convolution(16, (3, 3), padding=[1, 1, 1, 1]),
    real_convolution(16, (3, 2), strides=[2, 1], padding=[1, 0, 0, 1]),
    real_convolution(7, (1, 1)),
    real_convolution(8, (3, 3), dilation=[2, 2], padding=[2, 2, 2, 2]),
    real_convolution(40, (3, 3), 40, padding=[1, 1, 1, 1]),
    real_convolution(24, (2, 3), 8),
    lambda x: op.add(real_convolution(16, (3, 3), padding=[1, 1, 1, 1])(x), numbers(16)),
    lambda x: op.nn.conv2d(channels_first(x), numbers(6, 40, 2, 2)),
    lambda x: op.nn.conv2d_transpose(channels_first(x), numbers(40, 6, 3, 2), [2, 1], [1, 0, 0, 1], [1, 0]),
    lambda x: op.nn.conv2d_transpose(channels_first(x), numbers(40, 3, 2, 2), [2, 2], groups=4),
    lambda x: op.nn.conv1d(op.reshape(x, (2, 40, 30)), numbers(6, 20, 3), 2, [1, 2], 1, 2),
    lambda x: op.matmul(op.reshape(x, (60, 40)), numbers(40, 16)),
    lambda x: op.matmul(op.reshape(x, (2, 30, 40)), numbers(40, 5)),
    lambda x: op.matmul(op.reshape(x, (10, 6, 40)), op.reshape(x, (10, 40, 6))),
    lambda x: op.matmul(op.reshape(op.mean(x, [0, 1, 2]), (1, 40)), numbers(40, 24)),
]


@pytest.mark.parametrize("operators", [ELEMENTWISE, FUNCTIONS, MOVEMENT, REDUCTIONS, PRODUCTS])
def test_float_operators(operators: list[Operator], tmp_path: Path) -> None:
    """Breaks if a float operator's rule and its kernels round differently, or in another order."""
    network = side_by_side(SHAPE, [lambda emit, x, operator=operator: operator(x) for operator in operators])
    assert_same_bits(network, image(), tmp_path)
