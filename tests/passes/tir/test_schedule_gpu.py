"""schedule_gpu: threads compute what the loops compute, each output once, with the bits of a processor where it adds alike."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, tirx

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.gpu_tile import select_tile
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.schedule_gpu import schedule_gpu
from bnn_deploy.targets.kernels.epilogue import Epilogue
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.table import select_kernel
from tests.passes.execute import run_function
from tests.passes.gpu_threads import HOST, ORIN, SHARED_BYTES, compiled, kernels_of, random_arrays, run_threads
from tests.passes.networks import build, constant, take

IMAGE = (1, 6, 5, 16)


def functions(body: Callable[..., object], *shapes: tuple[int, ...]) -> list[tirx.PrimFunc]:
    """TIR of a float network, unscheduled."""
    module = fuse_float(build(list(shapes), body))
    return [function for _, function in module.functions_items() if isinstance(function, tirx.PrimFunc)]


def conv(x: relax.Expr, outputs: int, stride: int = 1, size: int = 3, groups: int = 1) -> relax.Expr:
    channels = int(x.ty.shape.values[3])
    weight = np.random.default_rng(0).integers(-3, 4, (size, size, channels // groups, outputs))
    options = {"data_layout": "NHWC", "kernel_layout": "HWIO"}
    return relax.op.nn.conv2d(x, constant(weight), [stride] * 2, [size // 2] * 4, groups=groups, **options)


EXACT = {
    "elementwise": lambda emit, x: relax.op.nn.relu(relax.op.add(x, constant(np.arange(16.0)))),
    "conv": lambda emit, x: conv(x, 24, stride=2),
    "conv, bias, prelu": lambda emit, x: relax.op.nn.prelu(
        relax.op.add(conv(x, 7), constant(np.arange(7.0))), constant(np.arange(7.0)), axis=3
    ),
    "grouped": lambda emit, x: conv(x, 32, groups=4),
    "depthwise channels first": lambda emit, x: relax.op.nn.conv2d(
        x, constant(np.ones((6, 1, 3, 3))), padding=[1] * 4, groups=6
    ),
    "max pool": lambda emit, x: relax.op.nn.max_pool2d(x, [3, 3], [2, 2], [1] * 4, layout="NHWC"),
    "average pool": lambda emit, x: relax.op.nn.avg_pool2d(x, [2, 2], [1, 1], layout="NHWC"),
    "sum of everything": lambda emit, x: relax.op.sum(x, axis=[0, 1, 2, 3], keepdims=True),
    "transpose": lambda emit, x: relax.op.permute_dims(x, [0, 3, 1, 2]),
    "roll": lambda emit, x: relax.op.concat([take(x, 1, 4, 6), take(x, 1, 0, 4)], axis=1),
    "concat of channels": lambda emit, x: relax.op.concat([relax.op.abs(x), relax.op.negative(x)], axis=3),
    "strided slice": lambda emit, x: take(x, 3, 1, 16, 3),
    "pad": lambda emit, x: relax.op.nn.pad(x, [0, 0, 1, 2, 3, 0, 0, 0]),
    "gather": lambda emit, x: relax.op.take(x, relax.const(np.array([3, 1, 2])), axis=3, mode="clip"),
    "broadcast": lambda emit, x: relax.op.multiply(take(x, 2, 1, 2), take(x, 1, 2, 3)),
    "where": lambda emit, x: relax.op.where(relax.op.greater(x, constant(0)), constant(1), constant(-1)),
    "comparison": lambda emit, x: relax.op.greater(x, constant(0)),
    "split": lambda emit, x: relax.TupleGetItem(emit(relax.op.split(x, 2, axis=3)), 1),
    "argmax": lambda emit, x: relax.op.argmax(x, axis=3),
    "resize": lambda emit, x: relax.op.image.resize2d(x, (12, 10), layout="NHWC", method="nearest_neighbor"),
    "transposed conv": lambda emit, x: relax.op.nn.conv2d_transpose(
        x, constant(np.ones((6, 4, 3, 3))), strides=[2, 2], padding=[1] * 4
    ),
    "softmax's maximum": lambda emit, x: relax.op.subtract(x, relax.op.max(x, axis=3, keepdims=True)),
}


@pytest.mark.parametrize("name", EXACT)
def test_threads_compute_what_the_loops_compute(name: str) -> None:
    """Breaks: an index is wrong, an output is left out or written twice, a barrier is missing."""
    for function in functions(EXACT[name], IMAGE):
        arrays = random_arrays(function, True)
        if name == "gather":
            arrays = [array if array.dtype.kind == "f" else np.array([3, 1, 2], array.dtype) for array in arrays]
        expected = run_function(function, HOST, *arrays)
        for a, b in zip(run_threads(function, arrays), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 2, st.integers(1, 24)),
    st.integers(1, 40),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 3]),
)
def test_convolutions_of_any_shape(shape: tuple[int, ...], outputs: int, stride: int, size: int) -> None:
    """Breaks: an extent that no tile divides, or a part of a sum without terms."""
    for function in functions(lambda emit, x: relax.op.nn.relu(conv(x, outputs, stride, size)), shape):
        arrays = random_arrays(function, True)
        expected = run_function(function, HOST, *arrays)[-1]
        np.testing.assert_array_equal(run_threads(function, arrays)[-1], expected)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), st.data())
def test_sums_over_any_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Breaks: outputs or terms of some order of axes are mixed up."""
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    for function in functions(lambda emit, x: relax.op.sum(x, axis=sorted(axes)), shape):
        x, y = random_arrays(function, True)
        np.testing.assert_array_equal(run_threads(function, [x, y])[-1], x.sum(axis=tuple(sorted(axes))))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 256, 40), (128, 64, 512), (9, 100, 7), (64, 1, 1030)])
def test_matrix_products(rows: int, inputs: int, outputs: int) -> None:
    """Breaks: a tile of 4 x 4 outputs, or one of one row, reads operands of others."""

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        return relax.op.add(relax.op.matmul(x, constant(np.ones((inputs, outputs)))), constant(np.ones(outputs)))

    for function in functions(body, (rows, inputs)):
        x, weights, bias, y = random_arrays(function, True)
        found = run_threads(function, [x, weights, bias, y])[-1]
        np.testing.assert_array_equal(found, x @ weights + bias)


def tree_sums(x: np.ndarray, parts: int) -> np.ndarray:
    """Float32 sums of the rows as threads share them: every ``parts``-th term each, then halves."""
    partial = np.zeros((len(x), parts), "float32")
    for start in range(0, x.shape[1], parts):
        terms = x[:, start : start + parts]
        partial[:, : terms.shape[1]] += terms
    while partial.shape[1] > 1:
        half = partial.shape[1] // 2
        partial = partial[:, :half] + partial[:, half:]
    return partial[:, 0]


@pytest.mark.parametrize("shape", [(8, 1000), (3, 37), (1, 5000)])
def test_shared_sums_are_added_by_a_fixed_tree(shape: tuple[int, int]) -> None:
    """Breaks: the order of a sum, and so its rounding, is not the one that is documented."""
    (function,) = functions(lambda emit, x: relax.op.sum(x, axis=[1]), shape)
    tile = select_tile(shape[:1], shape[1], True, False, True)
    assert tile.parts > 1
    x, y = random_arrays(function, False)
    assert run_threads(function, [x, y])[-1].tobytes() == tree_sums(x, tile.parts).tobytes()


@pytest.mark.parametrize("operator", [relax.op.sin, relax.op.cos, relax.op.exp])
def test_polynomials_have_a_processors_bits(operator: object) -> None:
    """Breaks: targets/cuda/float_functions.cuh and vector_math differ, and with them signs of the next layer."""
    (function,) = functions(lambda emit, x: operator(x), (1, 65536))
    bits = np.random.default_rng(0).integers(0, 2**32, 65536, dtype=np.uint64).astype("uint32")
    x = bits.view("float32").reshape(1, 65536).copy()
    x[0, :20000] = np.random.default_rng(1).uniform(-120, 120, 20000)
    x[0, 20000:20008] = [0, -0.0, np.inf, -np.inf, np.nan, 2**17, np.nextafter(np.float32(2**17), np.float32(0)), 1e-45]
    y = np.empty_like(x)
    expected = run_function(schedule_float(function, HOST), HOST, x, y)[-1]
    found = run_threads(function, [x, y])[-1]
    # Which of the many NaN it is means nothing.
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~numbers)
    np.testing.assert_array_equal(found[numbers].view("uint32"), expected[numbers].view("uint32"))


@pytest.mark.parametrize("operator", [relax.op.maximum, relax.op.minimum])
def test_larger_and_smaller_choose_as_a_processor_does(operator: object) -> None:
    """Breaks: CUDA's max, which returns the other zero or the other operand of NaN, comes back."""
    special = np.array([0, -0.0, np.nan, 1, -1, np.inf, -np.inf, 3], "float32")
    (function,) = functions(lambda emit, x, y: operator(x, y), (8, 8), (8, 8))
    x, y = np.repeat(special, 8).reshape(8, 8), np.tile(special, 8).reshape(8, 8)
    expected = run_function(schedule_float(function, HOST), HOST, x, y, np.empty_like(x))[-1]
    assert run_threads(function, [x, y, np.empty_like(x)])[-1].tobytes() == expected.tobytes()
    assert not re.search(r"\b(max|min|fmaxf|fminf)\(", kernels_of(compiled(function)[1]))


@pytest.mark.parametrize("operator", [relax.op.nn.softmax, relax.op.nn.gelu, relax.op.sigmoid, relax.op.rsqrt])
def test_transcendental_functions_stay_within_their_rounding(operator: object) -> None:
    """Breaks: a launch of a softmax reads what an earlier one has not written."""
    (function,) = functions(lambda emit, x: operator(x), IMAGE)
    arrays = [np.abs(array) for array in random_arrays(function, False)]
    expected = run_function(schedule_float(function, HOST), HOST, *arrays)[-1]
    # As on processors, see test_schedule_float: a softmax adds 16 terms in another order, 16 * 4 * 2**-24 < 4e-6.
    np.testing.assert_allclose(run_threads(function, arrays)[-1], expected, rtol=4e-6, atol=4e-6)


def test_no_approximate_function_is_called() -> None:
    """Breaks: a faster, coarser function of CUDA replaces one that all targets agree on."""
    operators = [relax.op.sin, relax.op.cos, relax.op.exp, relax.op.log, relax.op.tanh, relax.op.erf, relax.op.sqrt]
    operators += [relax.op.rsqrt, relax.op.sigmoid, relax.op.nn.gelu, relax.op.nn.softmax]
    for operator in operators:
        for function in functions(lambda emit, x, operator=operator: operator(x), IMAGE):
            assert not re.findall(r"\b__\w+f\(|\brsqrtf\(", kernels_of(compiled(function)[1]))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 4096), min_size=0, max_size=4).map(tuple),
    st.integers(1, 10**6),
    *[st.booleans()] * 3,
)
def test_tiles_fit_every_gpu(
    extents: tuple[int, ...], terms: int, splits: bool, shares: bool, parts_first: bool
) -> None:
    """Breaks: a block has more threads or shared memory than sm_53 has, or a tile does not divide the outputs."""
    tile = select_tile(extents, terms, splits, shares, parts_first)
    assert 1 <= tile.threads <= 1024 and tile.parts & (tile.parts - 1) == 0 and tile.parts <= max(terms, 1)
    assert tile.parts == 1 or splits
    assert 4 * tile.rows * tile.columns * tile.threads <= SHARED_BYTES
    assert tile.columns == 1 or extents[-1] % tile.columns == 0
    assert tile.rows == 1 or any(extent % tile.rows == 0 and extent > 1 for extent in extents[:-1])


def test_batch_1_heads_have_threads_for_a_large_gpu() -> None:
    """Breaks: 1000 threads compute the 1000 classes of one image, one after the other term."""
    (function,) = functions(lambda emit, x: relax.op.matmul(x, constant(np.ones((1024, 1000)))), (1, 1024))
    ((launch,), source) = compiled(function)
    assert launch.grid[0] >= 100 and launch.grid[0] * launch.block[0] >= 32768
    assert re.search(r"= \*\(float4\*\)\(\w+_pointer", kernels_of(source))


def test_large_images_have_tiles_in_registers_and_wide_loads() -> None:
    """Breaks: each thread of a stem loads its weights one by one, or stores one channel at a time."""

    def stem(emit: object, x: relax.Expr) -> relax.Expr:
        return relax.op.add(conv(x, 32, 2), constant(np.arange(32.0)))

    (function,) = functions(stem, (16, 224, 224, 3))
    (launches, source) = compiled(function)
    text = kernels_of(source)
    assert len(launches) == 1 and "totals_ptr[16]" in text
    assert len(re.findall(r"= \*\(float4\*\)\(\w+_pointer", text)) == 2 and "make_float4" not in text
    assert len(re.findall(r"\*\(float4\*\)\(\w+_pointer \+ .*\) = ", text)) == 1


def test_tiles_of_several_rows_lie_where_they_belong() -> None:
    """Breaks: in a large image of a batch, a thread that has outputs of several pixels writes those of other pixels."""
    (function,) = functions(lambda emit, x: conv(x, 16, size=1), (2, 128, 128, 2))
    assert len(compiled(function)[0]) == 1 and "totals_ptr[16]" in compiled(function)[1]
    arrays = random_arrays(function, True)
    np.testing.assert_array_equal(run_threads(function, arrays)[-1], run_function(function, HOST, *arrays)[-1])


def test_tensors_that_indices_cannot_count_are_refused() -> None:
    """Breaks: an index of 32 bits overflows on the device."""
    (function,) = functions(lambda emit, x: relax.op.abs(x), (2**16, 2**15))
    with pytest.raises(CompileError, match="has 2147483648 elements, but kernels for GPUs count to 2147483647"):
        schedule_gpu(function)


def test_binary_kernels_compare_as_processors_do() -> None:
    """Breaks: an epilogue's maximum with NaN is the other number, as CUDA's max gives it, and the sign +1 where a CPU's is -1."""
    epilogue = Epilogue(images=(), vectors=1, steps=(("maximum", 0, 1), ("minimum", 2, 1)))
    layer = ConvolutionSpecification(1, 4, 4, 32, 32, epilogue=epilogue)
    kernel = select_kernel(layer, ORIN)
    _, source = compiled(kernel.build().with_attr("bnn.kernel", kernel.name))
    results = re.findall(r"float result\w* = (.*);", kernels_of(source))
    assert results and all("?" in result and "max(" not in result and "min(" not in result for result in results)


@pytest.mark.parametrize("sm", [53, 90])
def test_sources_compile(sm: int) -> None:
    """Breaks: TVM's CUDA of some operator is no CUDA."""
    parts, head = [], ""
    for number, body in enumerate(EXACT.values()):
        for index, function in enumerate(functions(body, IMAGE)):
            _, source = compiled(function, f"k{number}_{index}", sm)
            text = kernels_of(source)
            head = source[: -len(text)]
            parts.append(text)
    assert compile_cuda(head + "\n".join(parts), sm).cubin[:4] == b"\x7fELF"
