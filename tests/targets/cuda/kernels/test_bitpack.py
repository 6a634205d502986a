"""Packing and shifting on a GPU: bit-exact with its threads as loops, in both orders; one vote per word in the machine code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.codegen.cuda_compiler import compile_cuda
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.tir.cuda_source import cuda_source, device_kernels
from bnn_deploy.passes.tir.raw_pointers import raw_pointers
from bnn_deploy.targets.base import Gpu
from bnn_deploy.targets.cuda.kernels import bitpack, shift_words
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    SignPackSpecification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.kernels.specification import ShiftWordsSpecification, Specification
from bnn_deploy.targets.registry import get_target
from tests.cuda.disassembly import kernel_code
from tests.cuda.serial import kernel_case, serial_mismatches, serial_programs
from tests.targets.cases import PACKS, Case
from tests.targets.kernels.packing.test_bitpack import Many, many_case

GPU = Gpu(87)
# Small calls, calls of which a warp makes several words, and such that leave its last ones without work.
SIZES = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 70)),
    st.sampled_from([(1, 48, 48, 32), (2, 31, 37, 33), (1, 7, 151, 64), (3, 29, 31, 1)]),
)


@st.composite
def packs(draw: st.DrawFn) -> SignPackSpecification | TernaryPackSpecification:
    """Calls of the kernels with one output."""
    sizes = draw(SIZES)
    if draw(st.integers(0, 3)) == 0:
        return TernaryPackSpecification(*sizes)
    threshold = (draw(st.sampled_from([1, sizes[0]])), 1, 1, draw(st.sampled_from([1, sizes[3]])))
    return SignPackSpecification(*sizes, threshold, draw(st.sampled_from([-1, 0, 1])))


@st.composite
def manies(draw: st.DrawFn) -> Many:
    """Calls of the kernels with several outputs."""
    sizes, planes = draw(SIZES), draw(st.integers(1, 4))
    if draw(st.booleans()):
        return MultiTernaryPackSpecification(*sizes, planes)
    return MultiSignPackSpecification(*sizes, planes, draw(st.sampled_from([-1, 0, 1])))


@st.composite
def shifts(draw: st.DrawFn) -> ShiftWordsSpecification:
    """Moves of runs of words, some of which are multiples of 2 or 4."""
    unit = draw(st.sampled_from([1, 2, 4]))
    words, segments = draw(st.integers(1, 10)), []
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, words - 1))
        count = draw(st.integers(1, words - first))
        segments.append((first * unit, count * unit, draw(st.integers(-9, 9)), draw(st.integers(-9, 9))))
    sizes = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    return ShiftWordsSpecification(*sizes, words * unit, tuple(segments))


def many_kernel_case(specification: Many, seed: int) -> tuple[Case, list[np.ndarray]]:
    """The call, whose outputs but for the last count as inputs, and the words of all outputs."""
    _, inputs, planes = many_case(specification, get_target("x86-64-v3"), seed)
    kernel = bitpack.kernel(specification, GPU)
    # What lies in the planes before must be overwritten.
    return Case(kernel.name, kernel, (*inputs, *(~plane for plane in planes[:-1])), planes[-1]), planes


def shift_case(specification: ShiftWordsSpecification, seed: int) -> Case:
    """A call on random words, and what numpy's roll makes of them."""
    x = np.random.default_rng(seed).integers(0, 2**32, specification.input_shape, np.uint32)
    runs = [np.roll(x[..., f : f + n], (-dr, -dc), (1, 2)) for f, n, dr, dc in specification.segments]
    kernel = shift_words.kernel(specification, GPU)
    return Case(str(specification), kernel, (x,), np.ascontiguousarray(np.concatenate(runs, axis=3)))


def test_edge_bank(tmp_path: Path) -> None:
    """A NaN, a zero or a value at the threshold becomes another bit than on processors, or a tail or an image is mixed up."""
    cases = [
        kernel_case(name, bitpack.kernel(specification, GPU), seed)
        for seed, (name, specification) in enumerate(PACKS.items())
    ]
    assert serial_mismatches(cases, tmp_path) == []


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(specifications=st.lists(packs(), min_size=8, max_size=8), seed=st.integers(0, 2**32 - 9))
def test_random_packs(tmp_path_factory: pytest.TempPathFactory, specifications: list, seed: int) -> None:
    """Some number of channels, words or images leaves a word out or makes one of another pixel's values."""
    cases = [
        kernel_case(str(specification), bitpack.kernel(specification, GPU), seed + i)
        for i, specification in enumerate(specifications)
    ]
    assert serial_mismatches(cases, tmp_path_factory.mktemp("packs")) == []


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(specifications=st.lists(manies(), min_size=6, max_size=6), seed=st.integers(0, 2**32 - 9))
def test_random_manies(tmp_path_factory: pytest.TempPathFactory, specifications: list, seed: int) -> None:
    """A plane has the bits of another one, or differs from packing it alone at equality, NaN or a zero."""
    calls = [many_kernel_case(specification, seed + i) for i, specification in enumerate(specifications)]
    cases = [case for case, _ in calls]
    for _, program in serial_programs(cases, tmp_path_factory.mktemp("manies")):
        memory = program.run()
        wanted = program.before.copy()
        for offsets, (_, planes) in zip(program.offsets, calls, strict=True):
            for offset, plane in zip(offsets[-len(planes) :], planes, strict=True):
                wanted[offset : offset + plane.nbytes] = np.ascontiguousarray(plane).reshape(-1).view(np.uint8)
        np.testing.assert_array_equal(memory, wanted)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(specifications=st.lists(shifts(), min_size=10, max_size=10))
def test_random_shifts(tmp_path_factory: pytest.TempPathFactory, specifications: list) -> None:
    """A branch of a ShiftBlock sees another pixel, or another word, than PyTorch's roll gives it."""
    cases = [shift_case(specification, seed) for seed, specification in enumerate(specifications)]
    assert serial_mismatches(cases, tmp_path_factory.mktemp("shifts")) == []


def cubin_of(kernel: Kernel, sm: int) -> bytes:
    """Machine code of a kernel, whose symbol is "kernel"."""
    function = raw_pointers(kernel.build().with_attr("bnn.kernel", kernel.name), "kernel").function
    return compile_cuda(cuda_source(device_kernels(function)[0], sm), sm).cubin


@pytest.mark.parametrize("sm", [53, 90])
@pytest.mark.parametrize(
    "specification, votes",
    [
        (SignPackSpecification(1, 28, 28, 128, (1, 1, 1, 128)), 4),
        (MultiSignPackSpecification(1, 28, 28, 128, 3), 12),
        (TernaryPackSpecification(1, 28, 28, 100), 8),
        (MultiTernaryPackSpecification(1, 7, 7, 64, 2), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_vote_makes_a_word(specification: Specification, votes: int, sm: int) -> None:
    """The compiler does not know a GPU's code for the kernel, calls functions, or a word takes more than one vote of a warp."""
    code = kernel_code(cubin_of(bitpack.kernel(specification, Gpu(sm)), sm))["kernel"]
    assert code.calls == ()
    if sm >= 70:  # nvdisasm names the instructions of older ones not
        found = sum(count for name, count in code.opcodes.items() if name.startswith("VOTE"))
        assert found == votes, code.opcodes
        assert not {name for name in code.opcodes if name.startswith(("LDL", "STL"))}, code.opcodes


@pytest.mark.parametrize("words, width", [(8, "128"), (2, "64"), (3, "")])
def test_shifts_move_whole_registers(words: int, width: str) -> None:
    """Words are moved one by one where four or two of them could be."""
    specification = ShiftWordsSpecification(1, 14, 14, 2 * words, ((0, words, 1, 0), (words, words, 0, -1)))
    code = kernel_code(cubin_of(shift_words.kernel(specification, Gpu(90)), 90))["kernel"]
    for kind in ("LDG", "STG"):
        names = [name for name in code.opcodes if name.startswith(kind)]
        assert names and all((".128" in name, ".64" in name) == (width == "128", width == "64") for name in names), (
            names
        )
    assert code.calls == ()


def test_indices_beyond_int32_are_refused() -> None:
    """A batch too large for the indices is computed, and wraps around."""
    for specification in (SignPackSpecification(256, 512, 512, 64), TernaryPackSpecification(256, 512, 512, 64)):
        with pytest.raises(CompileError, match=r"4294967296 elements.*smaller batch"):
            bitpack.kernel(specification, GPU).build()
    with pytest.raises(CompileError, match=r"smaller batch"):
        shift_words.kernel(ShiftWordsSpecification(256, 512, 512, 32, ((0, 32, 1, 0),)), GPU).build()
    largest = SignPackSpecification(255, 256, 256, 128)
    bitpack.kernel(largest, GPU).build()
