"""raw_pointers: kernels become plain C functions that need nothing of TVM at run time."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.raw_pointers import RawKernel, raw_pointers
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.targets.kernels.pack_specification import SignPackSpecification
from bnn_deploy.targets.registry import host_target
from bnn_deploy.targets.table import select_kernel
from tests.passes.evaluate import pack_words
from tests.passes.execute import aligned, call_pointers, link, run_function
from tests.passes.networks import build

HOST = host_target()
GUARD = 0x5A


def scheduled(operator: object, shape: tuple[int, ...]) -> tirx.PrimFunc:
    module = fuse_float(build([shape], lambda emit, x: operator(x)))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return schedule_float(function, HOST)


def sources() -> dict[str, tirx.PrimFunc]:
    """A kernel without scratch, one with, one with threads, and one of ours."""
    own = select_kernel(SignPackSpecification(2, 3, 3, 40, (1, 1, 1, 1)), HOST).build()
    return {
        "plain": scheduled(relax.op.abs, (3, 20)),
        "scratch": scheduled(lambda x: relax.op.nn.softmax(x, axis=-1), (3, 20)),
        "threads": scheduled(relax.op.abs, (64, 16, 32)),
        "own": own.with_attr("bnn.kernel", True),
    }


@pytest.fixture(scope="module")
def functions() -> dict[str, tirx.PrimFunc]:
    return sources()


@pytest.fixture(scope="module")
def kernels(functions: dict[str, tirx.PrimFunc]) -> dict[str, RawKernel]:
    return {name: raw_pointers(function, f"bnn_kernel_{name}") for name, function in functions.items()}


@pytest.fixture(scope="module")
def library(kernels: dict[str, RawKernel], tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    # The linker is told to refuse undefined symbols: kernels may need the C libraries and the launcher, nothing of TVM.
    module = tvm.IRModule({f"bnn_kernel_{name}": kernel.function for name, kernel in kernels.items()})
    return link(module, HOST, tmp_path_factory.mktemp("kernels"))


def test_parameters_are_pointers_and_the_result_is_an_int(kernels: dict[str, RawKernel]) -> None:
    """Breaks: the generated C tables call kernels with another signature than they have."""
    for name, kernel in kernels.items():
        function = kernel.function
        assert all(isinstance(parameter.ty, tvm.ir.PointerType) for parameter in function.params), name
        assert str(function.ret_type) == str(tvm.ir.PrimType("int32"))
        assert str(function.attrs["global_symbol"]) == f"bnn_kernel_{name}"


def test_scratch_follows_the_tensors(functions: dict[str, tirx.PrimFunc], kernels: dict[str, RawKernel]) -> None:
    """Breaks: a kernel allocates memory that the plan does not know, or the plan reserves too little."""
    allocated = functions["scratch"].body.block.alloc_buffers
    sizes = tuple(4 * int(np.prod([int(extent) for extent in buffer.shape])) for buffer in allocated)
    assert sizes and kernels["scratch"].scratch_bytes == sizes
    assert len(kernels["scratch"].function.params) == len(functions["scratch"].params) + len(sizes)
    for name in ("plain", "threads", "own"):
        assert kernels[name].scratch_bytes == ()
        assert len(kernels[name].function.params) == len(functions[name].params)


def test_own_kernels_keep_what_they_allocate(functions: dict[str, tirx.PrimFunc]) -> None:
    """Breaks: the registers of one thread become memory that all threads of a kernel write."""
    own = functions["scratch"].with_attr("bnn.kernel", "own")
    kernel = raw_pointers(own, "bnn_kernel_own")
    assert kernel.scratch_bytes == () and len(kernel.function.params) == len(own.params)


@pytest.mark.parametrize("name", ["plain", "scratch", "threads", "own"])
def test_called_from_c_it_computes_the_same(
    name: str, functions: dict[str, tirx.PrimFunc], kernels: dict[str, RawKernel], library: ctypes.CDLL
) -> None:
    """Breaks: the C function reads or writes other memory than it is given, or reports failure."""
    random = np.random.default_rng(0)
    arrays = [
        random.normal(size=[int(extent) for extent in buffer.shape]).astype(str(buffer.dtype))
        for buffer in functions[name].params
    ]
    expected = run_function(functions[name], HOST, *arrays)
    arrays[-1][...] = 0
    # Scratch memory is followed by guard bytes.
    scratch = [np.full(size + 64, GUARD, np.uint8) for size in kernels[name].scratch_bytes]
    memory = [aligned(array) for array in (*arrays, *scratch)]
    assert call_pointers(library, f"bnn_kernel_{name}", *memory) == 0
    for before, after in zip(expected, memory, strict=False):
        np.testing.assert_array_equal(after, before)
    for block in memory[len(arrays) :]:
        assert (block[-64:] == GUARD).all()


def test_packing_kernel_follows_the_packing_convention(library: ctypes.CDLL) -> None:
    """Breaks: a C caller sees other bits than bnn_deploy.bits describes."""
    x = aligned(np.random.default_rng(0).normal(size=(2, 3, 3, 40)).astype("float32"))
    threshold, words = aligned(np.zeros((1, 1, 1, 1), "float32")), aligned(np.zeros((2, 3, 3, 2), "uint32"))
    assert call_pointers(library, "bnn_kernel_own", x, threshold, words) == 0
    np.testing.assert_array_equal(words, pack_words(x > 0))
