"""tile_convolution: dense convolutions and matrix products get register tiles and compute the same; others are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.script import tirx as T

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.targets.kernels.floats.float_conv2d import FloatConvolution, select_tile
from bnn_deploy.targets.registry import get_target, host_target
from tests.passes.execute import run_function
from tests.passes.networks import build, constant

HOST = host_target()
TARGETS = [replace(HOST, vector_bits=bits) for bits in (128, 256, 512)]
RANDOM = np.random.default_rng(0)


def only(body: object, *shapes: tuple[int, ...]) -> tirx.PrimFunc:
    module = fuse_float(build(list(shapes), body))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return function


def conv(x: relax.Expr, outputs: int, kernel: tuple[int, int], **options: object) -> relax.Expr:
    channels = int(x.ty.shape.values[3]) // options.get("groups", 1)
    weight = RANDOM.integers(-3, 4, (*kernel, channels, outputs))
    return relax.op.nn.conv2d(x, constant(weight), data_layout="NHWC", kernel_layout="HWIO", **options)


def is_tiled(function: tirx.PrimFunc, target: object = HOST) -> bool:
    """A tiled kernel has no TVM blocks."""
    return "T.sblock" not in schedule_float(function, target).script()


def check(function: tirx.PrimFunc, target: object) -> None:
    """The scheduled kernel against TVM's own, on whole numbers: exact in every order."""
    arrays = [
        RANDOM.integers(-4, 5, [int(e) for e in buffer.shape]).astype(str(buffer.dtype)) for buffer in function.params
    ]
    expected = run_function(function, HOST, *arrays)[-1]
    arrays[-1][...] = np.nan
    np.testing.assert_array_equal(run_function(schedule_float(function, target), HOST, *arrays)[-1], expected)


def with_epilogue(emit: object, y: relax.Expr, residual: relax.Expr) -> relax.Expr:
    y = emit(y)
    outputs = int(y.ty.shape.values[-1])
    biased = emit(relax.op.add(emit(relax.op.add(y, constant(np.arange(outputs)))), residual))
    return relax.op.nn.prelu(biased, constant(np.arange(outputs) % 3), axis=len(y.ty.shape.values) - 1)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(4, 9), st.integers(4, 31), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.sampled_from([16, 32, 48, 64, 80]),
    st.sampled_from(TARGETS),
)
def test_any_dense_convolution(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, ...],
    outputs: int,
    target: object,
) -> None:
    """Breaks: a tap in the padding counts, the last tile of a row is missing, or channels are mixed up."""
    options = {"strides": list(strides), "padding": list(padding)}
    function = only(lambda emit, x: conv(x, outputs, kernel, **options), shape)
    assert is_tiled(function, target)
    check(function, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.vector_bits))
@pytest.mark.parametrize(("width", "outputs"), [(7, 32), (13, 64), (28, 320)])
def test_epilogue_with_a_residual(width: int, outputs: int, target: object) -> None:
    """Breaks: bias, shortcut or slope of another pixel or channel is applied."""
    function = only(
        lambda emit, x, r: with_epilogue(emit, conv(x, outputs, (1, 1)), r), (2, 3, width, 24), (2, 3, width, outputs)
    )
    assert is_tiled(function, target)
    check(function, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.vector_bits))
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 1000), (24, 40), (512, 16)])
def test_matrix_products(rows: int, inputs: int, outputs: int, target: object) -> None:
    """Breaks: the head of every network."""
    weight = RANDOM.integers(-3, 4, (inputs, outputs))
    function = only(
        lambda emit, x, r: with_epilogue(emit, relax.op.matmul(x, constant(weight)), r), (rows, inputs), (rows, outputs)
    )
    check(function, target)
    assert is_tiled(function, target) == (rows == 1 or outputs % (target.float_lanes // 2) == 0)


def test_large_products_are_shared_between_threads() -> None:
    """Breaks: two threads write the same sums, or the head runs on one thread."""
    weight = RANDOM.integers(-3, 4, (512, 1000))
    function = only(lambda emit, x: relax.op.matmul(x, constant(weight)), (1, 512))
    assert "T.parallel" in schedule_float(function, HOST).script()
    check(function, HOST)


@T.prim_func(s_tir=True, private=True)
def narrow_padding(x: T.Buffer((1, 5, 5, 4)), f: T.Buffer((3, 3, 4, 16)), y: T.Buffer((1, 5, 5, 16))):
    """A convolution whose padding covers the first row of x: what inlining makes of a padded slice."""
    for n, h, w, o, i, j, c in T.grid(1, 5, 5, 16, 3, 3, 4):
        with T.sblock("conv"):
            vn, vh, vw, vo, vi, vj, vc = T.axis.remap("SSSSRRR", [n, h, w, o, i, j, c])
            with T.init():
                y[vn, vh, vw, vo] = T.float32(0)
            y[vn, vh, vw, vo] = (
                y[vn, vh, vw, vo]
                + T.if_then_else(
                    vh + vi >= 2 and vh + vi < 6 and vw + vj >= 1 and vw + vj < 6,
                    x[vn, vh + vi - 1, vw + vj - 1, vc],
                    T.float32(0),
                )
                * f[vi, vj, vc, vo]
            )


@T.prim_func(s_tir=True, private=True)
def mirrored_epilogue(x: T.Buffer((1, 2, 2, 4)), f: T.Buffer((1, 1, 4, 16)), y: T.Buffer((1, 2, 2, 16))):
    """Each output needs the sum of another channel."""
    t = T.sblock_alloc_buffer((1, 2, 2, 16))
    for n, h, w, o, i, j, c in T.grid(1, 2, 2, 16, 1, 1, 4):
        with T.sblock("conv"):
            vn, vh, vw, vo, vi, vj, vc = T.axis.remap("SSSSRRR", [n, h, w, o, i, j, c])
            with T.init():
                t[vn, vh, vw, vo] = T.float32(0)
            t[vn, vh, vw, vo] = t[vn, vh, vw, vo] + x[vn, vh + vi, vw + vj, vc] * f[vi, vj, vc, vo]
    for n, h, w, o in T.grid(1, 2, 2, 16):
        with T.sblock("mirror"):
            vn, vh, vw, vo = T.axis.remap("SSSS", [n, h, w, o])
            y[vn, vh, vw, vo] = t[vn, vh, vw, vo] - t[vn, vh, vw, 15 - vo]


@T.prim_func(s_tir=True, private=True)
def part_of_sums(x: T.Buffer((1, 2, 3, 4)), f: T.Buffer((1, 1, 4, 16)), y: T.Buffer((1, 2, 2, 16))):
    """The sums of the last column are not read: what fusion makes of a slice."""
    t = T.sblock_alloc_buffer((1, 2, 3, 16))
    for n, h, w, o, i, j, c in T.grid(1, 2, 3, 16, 1, 1, 4):
        with T.sblock("conv"):
            vn, vh, vw, vo, vi, vj, vc = T.axis.remap("SSSSRRR", [n, h, w, o, i, j, c])
            with T.init():
                t[vn, vh, vw, vo] = T.float32(0)
            t[vn, vh, vw, vo] = t[vn, vh, vw, vo] + x[vn, vh + vi, vw + vj, vc] * f[vi, vj, vc, vo]
    for n, h, w, o in T.grid(1, 2, 2, 16):
        with T.sblock("part"):
            vn, vh, vw, vo = T.axis.remap("SSSS", [n, h, w, o])
            y[vn, vh, vw, vo] = t[vn, vh, vw, vo]


@T.prim_func(s_tir=True, private=True)
def part_of_rows(x: T.Buffer((5, 24)), w: T.Buffer((16, 32)), y: T.Buffer((5, 32))):
    """A matrix product of the first columns of x: what inlining makes of a slice."""
    for r, o, i in T.grid(5, 32, 16):
        with T.sblock("product"):
            vr, vo, vi = T.axis.remap("SSR", [r, o, i])
            with T.init():
                y[vr, vo] = T.float32(0)
            y[vr, vo] = y[vr, vo] + x[vr, vi] * w[vi, vo]


LEFT_ALONE = {
    "groups": lambda emit, x: conv(x, 32, (3, 3), groups=2),
    "dilation": lambda emit, x: conv(x, 32, (3, 3), dilation=[2, 2]),
    "odd channels": lambda emit, x: conv(x, 7, (3, 3)),
}
WRITTEN = {
    "narrow padding": narrow_padding,
    "mirrored epilogue": mirrored_epilogue,
    "part of rows": part_of_rows,
    "part of sums": part_of_sums,
}


@pytest.mark.parametrize("name", [*LEFT_ALONE, *WRITTEN])
def test_what_is_not_recognised_is_still_right(name: str) -> None:
    """Breaks: a layer that only looks like a dense convolution is computed as one."""
    function = WRITTEN[name] if name in WRITTEN else only(LEFT_ALONE[name], (1, 6, 7, 16))
    assert not is_tiled(function, TARGETS[2])
    check(function, TARGETS[2])


def test_bits_do_not_depend_on_the_tile() -> None:
    """Breaks: the same model gives other floats on another target."""
    function = only(lambda emit, x: conv(x, 64, (3, 3), padding=[1, 1, 1, 1]), (1, 5, 14, 16))
    arrays = [RANDOM.normal(size=[int(e) for e in buffer.shape]).astype("float32") for buffer in function.params]
    results = [run_function(schedule_float(function, target), HOST, *arrays)[-1] for target in TARGETS]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize(("target", "multiply"), [("x86-64-v4", "vfmadd"), ("x86-64-v3", "vfmadd"), ("rpi4", "fmla")])
def test_accumulators_stay_in_registers(target: str, multiply: str, tmp_path: object) -> None:
    """Breaks: the inner loop reads or writes its sums in memory, which halves its speed."""
    chosen = get_target(target)
    function = only(lambda emit, x: conv(x, 64, (1, 1)), (1, 4, 28, 64)).with_attr("global_symbol", "kernel")
    scheduled = schedule_float(function, chosen)
    tvm.tirx.build(scheduled, tvm.target.Target(chosen.llvm)).write_to_file(str(tmp_path / "k.s"), "asm")
    lines = (tmp_path / "k.s").read_text().splitlines()
    products = [index for index, line in enumerate(lines) if multiply in line]
    tile = select_tile(FloatConvolution(1, 4, 28, 64, 4, 28, 64), chosen.float_lanes)
    assert len(products) >= tile.pixels * tile.vectors
    # Between the products of one unrolled step there are loads of X and weights, but no store.
    inner = [lines[index] for index in range(products[0], products[tile.pixels * tile.vectors - 1])]
    stores = [
        line for line in inner if "str\tq" in line or (line.rstrip().endswith(("(%rsp)", "(%rbp)")) and "mov" in line)
    ]
    assert not stores
