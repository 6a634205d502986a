"""schedule_float: loops change, results do not; padding is inlined, vectors and threads are used where they pay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, s_tir, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import get_target, host_target
from bnn_deploy.targets.table import select_kernel
from tests.passes.execute import run_function
from tests.passes.networks import build, constant, take

HOST = host_target()
# The narrowest and the widest registers that schedules are made for; both run here, since vectors are legalised by LLVM.
NARROW = replace(HOST, vector_bits=128)
IMAGE = (1, 6, 5, 16)


def functions(body: object, *shapes: tuple[int, ...]) -> list[tirx.PrimFunc]:
    """TIR of a float network, unscheduled."""
    module = fuse_float(build(list(shapes), body))
    return [function for _, function in module.functions_items() if isinstance(function, tirx.PrimFunc)]


def only(body: object, *shapes: tuple[int, ...]) -> tirx.PrimFunc:
    (function,) = functions(body, *shapes)
    return function


def loops(function: tirx.PrimFunc) -> list[tuple[int, int]]:
    """(kind, extent) of every loop."""
    found, pending = [], [function.body]
    while pending:
        statement = pending.pop()
        if isinstance(statement, tirx.For):
            found.append((int(statement.kind), int(statement.extent)))
        if isinstance(statement, tirx.SeqStmt):
            pending.extend(statement.seq)
        elif isinstance(statement, s_tir.SBlockRealize):
            pending.extend(s for s in (statement.block.init, statement.block.body) if s is not None)
        elif hasattr(statement, "body"):
            pending.append(statement.body)
    return found


def allocated(function: tirx.PrimFunc) -> int:
    # A tiled convolution has no root block, and allocates nothing but registers.
    return len(function.body.block.alloc_buffers) if isinstance(function.body, s_tir.SBlockRealize) else 0


def nhwc_conv(x: relax.Expr, outputs: int, stride: int = 1, groups: int = 1) -> relax.Expr:
    channels = int(x.ty.shape.values[3])
    weight = np.random.default_rng(0).integers(-3, 4, (3, 3, channels // groups, outputs))
    return relax.op.nn.conv2d(
        x, constant(weight), [stride] * 2, [1] * 4, groups=groups, data_layout="NHWC", kernel_layout="HWIO"
    )


NETWORKS = {
    "elementwise": lambda emit, x: relax.op.nn.relu(relax.op.add(x, constant(np.arange(16.0)))),
    "conv": lambda emit, x: nhwc_conv(x, 24, stride=2),
    "conv with odd channels": lambda emit, x: nhwc_conv(x, 7),
    "depthwise channels first": lambda emit, x: relax.op.nn.conv2d(
        x, constant(np.ones((6, 1, 3, 3))), padding=[1] * 4, groups=6
    ),
    "conv, bias, prelu": lambda emit, x: relax.op.nn.prelu(
        relax.op.add(nhwc_conv(x, 8), constant(np.arange(8.0))), constant(np.arange(8.0)), axis=3
    ),
    "max pool": lambda emit, x: relax.op.nn.max_pool2d(x, [3, 3], [2, 2], [1] * 4, layout="NHWC"),
    "average pool": lambda emit, x: relax.op.nn.avg_pool2d(x, [2, 2], [1, 1], layout="NHWC"),
    "mean": lambda emit, x: relax.op.sum(x, axis=[1, 2]),
    "sum of everything": lambda emit, x: relax.op.sum(x, axis=[0, 1, 2, 3], keepdims=True),
    "transpose": lambda emit, x: relax.op.permute_dims(x, [0, 3, 1, 2]),
    "roll": lambda emit, x: relax.op.concat([take(x, 1, 4, 6), take(x, 1, 0, 4)], axis=1),
    "strided slice": lambda emit, x: take(x, 3, 1, 16, 3),
    "head": lambda emit, x: relax.op.matmul(relax.op.reshape(x, (30, 16)), constant(np.eye(16, 10))),
    "where": lambda emit, x: relax.op.where(relax.op.greater(x, constant(0)), constant(1), constant(-1)),
    "split": lambda emit, x: relax.TupleGetItem(emit(relax.op.split(x, 2, axis=3)), 1),
}


def run_both(function: tirx.PrimFunc, target: object, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    arrays = []
    for buffer in function.params:
        shape = [int(extent) for extent in buffer.shape]
        # Whole numbers: sums and products are exact, so that a changed order or a missing term is all that can show.
        values = random.integers(-4, 5, shape)
        arrays.append(values > 0 if str(buffer.dtype) == "bool" else values.astype(str(buffer.dtype)))
    return run_function(function, HOST, *arrays), run_function(schedule_float(function, target), HOST, *arrays)


@pytest.mark.parametrize("target", [HOST, NARROW], ids=["host", "128 bits"])
@pytest.mark.parametrize("name", NETWORKS)
def test_results_do_not_change(name: str, target: object) -> None:
    """Breaks: a schedule loses or repeats part of a reduction, or inlines the wrong producer."""
    for function in functions(NETWORKS[name], IMAGE):
        expected, found = run_both(function, target)
        for before, after in zip(expected, found, strict=True):
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("operator", [relax.op.nn.softmax, relax.op.nn.gelu, relax.op.sigmoid, relax.op.cos])
def test_transcendental_functions_stay_within_their_rounding(operator: object) -> None:
    """Breaks: vectorised exp, erf or cos is another, coarser function."""
    function = only(lambda emit, x: operator(x), IMAGE)
    expected, found = run_both(function, HOST)
    # Vector and scalar code may contract a multiply and an add differently: a few roundings of 2**-24 relative to values of at
    # most 1 (gelu: 4), over at most 16 terms of a softmax: 16 * 4 * 2**-24 < 4e-6.
    np.testing.assert_allclose(found[-1], expected[-1], rtol=4e-6, atol=4e-6)


@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3, st.integers(1, 40)), st.integers(1, 40), st.sampled_from([1, 2]))
def test_convolutions_of_any_shape(shape: tuple[int, ...], outputs: int, stride: int) -> None:
    """Breaks: an extent that no vector divides, or an extent of 1, is scheduled wrongly."""
    function = only(lambda emit, x: relax.op.nn.relu(nhwc_conv(x, outputs, stride)), shape)
    expected, found = run_both(function, HOST)
    np.testing.assert_array_equal(found[-1], expected[-1])


def test_padding_is_no_copy() -> None:
    """Breaks: every convolution first copies its padded image."""
    function = only(NETWORKS["conv"], IMAGE)
    assert allocated(function) == 1
    assert allocated(schedule_float(function, HOST)) == 0


def test_a_producer_that_would_be_recomputed_often_stays() -> None:
    """Breaks: exp of one channel is computed again for each of the 16 channels that it is broadcast to."""
    function = only(lambda emit, x, y: relax.op.add(relax.op.exp(x), y), (1, 6, 5, 1), IMAGE)
    assert allocated(schedule_float(function, HOST)) == allocated(function) == 1


def test_a_producer_read_once_is_inlined() -> None:
    """Breaks: a chain of elementwise operators writes every intermediate image to memory."""
    function = only(lambda emit, x, y: relax.op.add(relax.op.exp(x), y), IMAGE, IMAGE)
    assert allocated(function) == 1 and allocated(schedule_float(function, HOST)) == 0


def test_last_axis_is_vectorised() -> None:
    """Breaks: float work runs one element at a time."""
    scheduled = schedule_float(only(NETWORKS["elementwise"], IMAGE), get_target("x86-64-v3"))
    assert (tirx.ForKind.VECTORIZED, 16) in loops(scheduled)


def test_extent_without_a_fitting_divisor_is_not_vectorised() -> None:
    """Breaks: 7 channels are cut into vectors of 8."""
    scheduled = schedule_float(only(lambda emit, x: relax.op.abs(x), (1, 4, 4, 7)), replace(HOST, vector_bits=512))
    assert all(kind != tirx.ForKind.VECTORIZED for kind, _ in loops(scheduled))


@pytest.mark.parametrize(("height", "threads"), [(32, False), (64, True)])
def test_only_large_work_wakes_threads(height: int, threads: bool) -> None:
    """Breaks: small kernels wait for threads, or large ones run on one."""
    # 16384 elements is the bound: 32 * 16 * 16 = 8192 and 64 * 16 * 16 = 16384.
    scheduled = schedule_float(only(lambda emit, x: relax.op.abs(x), (1, height, 16, 16)), HOST)
    assert any(kind == tirx.ForKind.PARALLEL for kind, _ in loops(scheduled)) == threads


def test_reductions_are_not_shared_between_threads() -> None:
    """Breaks: two threads add into the same element, or results depend on the number of threads."""
    scheduled = schedule_float(only(lambda emit, x: relax.op.sum(x, axis=[3]), (1, 16, 16, 256)), HOST)
    parallel = [extent for kind, extent in loops(scheduled) if kind == tirx.ForKind.PARALLEL]
    assert parallel and all(256 % extent == 0 and extent <= 16 for extent in parallel)


def test_binary_kernels_are_left_alone() -> None:
    """Breaks: kernels that come scheduled are scheduled again."""
    specification = ConvolutionSpecification(1, 4, 4, 32, 8)
    kernel = select_kernel(specification, HOST).build().with_attr("bnn.kernel", True)
    assert schedule_float(kernel, HOST).same_as(kernel)


def test_attributes_survive() -> None:
    """Breaks: the kernel loses noalias, and with it its speed."""
    function = only(NETWORKS["conv"], IMAGE)
    scheduled = schedule_float(function, HOST)
    tvm.ir.assert_structural_equal(scheduled.attrs, function.attrs)


@pytest.mark.parametrize(("window", "unrolled"), [(7, True), (8, False)])
def test_pooling_windows_are_unrolled(window: int, unrolled: bool) -> None:
    """Breaks: a pool's maximum goes through memory at every tap, or a huge window becomes huge code."""
    function = only(lambda emit, x: relax.op.nn.max_pool2d(x, [window] * 2, [2, 2], layout="NHWC"), (1, 12, 12, 16))
    assert ((int(tirx.ForKind.UNROLLED), window) in loops(schedule_float(function, HOST))) == unrolled
    before, after = run_both(function, HOST)
    np.testing.assert_array_equal(after[-1], before[-1])
