"""Every kernel against the references, bit for bit, on every target that can run here or under qemu."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import TargetError
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.pack_specification import SignPackSpecification, TernaryPackSpecification
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification, Specification
from bnn_deploy.targets.registry import cpu_targets, get_target, host_target, missing_cpu_flags
from bnn_deploy.targets.table import select_kernel
from tests.targets.cases import Case, block_bank, block_cases, edge_bank, make_case
from tests.targets.program import Program

X86_64 = [target.name for target in cpu_targets() if target.architecture == "x86_64"]
# One core of each kind of kernels: any (as rpi5, see below), in-order, out-of-order with a slow bsl.
ARM64 = ["arm64", "rpi3", "rpi4"]
# The same, but the first with LLVM's instructions for ARMv8.2-A.
ARM64_AND_V8_2 = ["rpi5", "rpi3", "rpi4"]


def runnable(name: str) -> Target:
    """The target, or a skip that says what this processor lacks."""
    target = get_target(name)
    missing = missing_cpu_flags(target)
    if missing:
        pytest.skip(f"this processor lacks {' '.join(missing)}, which {name} needs")
    return target


def best_target() -> Target:
    """The best target that this processor runs natively, or a skip."""
    try:
        return host_target()
    except TargetError as error:
        pytest.skip(str(error))


def edge_cases(target: Target, first_variant: int = 0) -> list[Case]:
    """The edge bank on a target; tests start with different variants, so that together they cover them all."""
    bank = edge_bank(first_variant)
    cases = [make_case(name, shape, target, seed) for seed, (name, shape) in enumerate(bank.items())]
    # Random bits fill a byte counter to half at most; these fill it to the brim.
    full = [
        make_case(f"{name}, all products -1", shape, target, 0, all_products_minus_one=True)
        for name, shape in bank.items()
        if name.startswith("byte counters")
    ]
    return cases + full


@pytest.mark.parametrize("name", X86_64)
def test_edge_bank_on_x86_64(name: str, tmp_path: Path) -> None:
    """Wrong bits, writes outside of the output, or results that depend on the number of threads, in a known hard case."""
    program = Program(edge_cases(runnable(name), X86_64.index(name)), get_target(name), tmp_path)
    for parts in (1, 2, 13):
        assert program.mismatches(program.run(parts=parts)) == []


@pytest.mark.qemu
@pytest.mark.parametrize("name", ARM64)
def test_edge_bank_on_arm64(name: str, tmp_path: Path) -> None:
    """NEON kernels differ from the references in one of the known hard cases."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (Debian package qemu-user)")
    target = get_target(name)
    program = Program(edge_cases(target, ARM64.index(name)), target, tmp_path)
    assert program.mismatches(program.run([emulator])) == []


def test_arm64_and_rpi5_have_the_same_kernels() -> None:
    """One of them has a kernel that ran through half of the hard cases only: edges are for arm64, blocks of rows for rpi5."""
    for specification in (*edge_bank().values(), *block_bank().values()):
        one, other = (select_kernel(specification, get_target(name)) for name in ("arm64", "rpi5"))
        assert one.name == other.name
        tvm.ir.assert_structural_equal(one.build(), other.build())


def all_blocks(target: Target, first_variant: int) -> list[Case]:
    """Every block of the layers that are cut into blocks of rows."""
    bank = block_bank(first_variant).items()
    return [case for seed, (name, shape) in enumerate(bank) for case in block_cases(name, shape, target, seed)]


@pytest.mark.parametrize("name", X86_64)
def test_blocks_of_rows_on_x86_64(name: str, tmp_path: Path) -> None:
    """A call for one block of rows reads the wrong rows of X, or writes other rows than its own."""
    program = Program(all_blocks(runnable(name), X86_64.index(name)), get_target(name), tmp_path)
    for parts in (1, 3):
        assert program.mismatches(program.run(parts=parts)) == []


@pytest.mark.qemu
@pytest.mark.parametrize("name", ARM64_AND_V8_2)
def test_blocks_of_rows_on_arm64(name: str, tmp_path: Path) -> None:
    """A NEON kernel reads the wrong rows of X for a block of rows, or writes other rows than its own."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (Debian package qemu-user)")
    target = get_target(name)
    program = Program(all_blocks(target, ARM64_AND_V8_2.index(name)), target, tmp_path)
    assert program.mismatches(program.run([emulator])) == []


@st.composite
def convolutions(draw: st.DrawFn) -> ConvolutionSpecification:
    """Small layers of every family."""
    depthwise = draw(st.booleans())
    group = draw(st.integers(1, 70)) if depthwise else draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.sampled_from([1, 2, 4, 8, 16])) if depthwise else draw(st.integers(1, 130))
    outputs = 1 if depthwise else draw(st.integers(1, 70))
    kernel_shape = draw(st.sampled_from([(1, 1), (3, 3), (1, 7), (7, 1), (2, 5)]))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    smallest = [
        max(1, kernel - before - after) for kernel, before, after in zip(kernel_shape, pads[:2], pads[2:], strict=True)
    ]
    return ConvolutionSpecification(
        batch=draw(st.integers(1, 3)),
        height=draw(st.integers(smallest[0], smallest[0] + 8)),
        width=draw(st.integers(smallest[1], smallest[1] + 16)),
        in_channels=group * channels,
        out_channels=group * outputs,
        kernel_shape=kernel_shape,
        strides=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        pads=pads,
        group=group,
        ternary=draw(st.booleans()),
        tap_scaled=draw(st.booleans()),
    )


@st.composite
def packs(draw: st.DrawFn) -> Specification:
    """Small sign_pack and ternary_pack calls."""
    batch, height, width = draw(st.tuples(*[st.integers(1, 3)] * 3))
    channels = draw(st.integers(1, 140))
    if draw(st.booleans()):
        return TernaryPackSpecification(batch, height, width, channels)
    threshold_shape = (draw(st.sampled_from([1, batch])), 1, 1, draw(st.sampled_from([1, channels])))
    return SignPackSpecification(batch, height, width, channels, threshold_shape, draw(st.sampled_from([-1, 0, 1])))


def compiled_here(case: Case, target: Target) -> tvm.runtime.Module:
    """The kernel of ``case`` in this process, as ``kernel``."""
    function = case.kernel.build().with_attr("global_symbol", "kernel")
    return tvm.compile(function, target=tvm.target.Target(target.llvm))


def call_here(compiled: tvm.runtime.Module, case: Case) -> np.ndarray:
    """Y after the call ``case``."""
    untouched = np.full(case.expected.shape, 0xA5A5A5A5, np.uint32).view(case.expected.dtype)
    arguments = [tvm.runtime.tensor(array) for array in (*case.inputs, untouched)]
    compiled["kernel"](*arguments, *([] if case.block is None else [case.block]))
    return arguments[-1].numpy()


def run_here(case: Case, target: Target) -> np.ndarray:
    """Y after a call in this process."""
    return call_here(compiled_here(case, target), case)


@st.composite
def blocked_convolutions(draw: st.DrawFn) -> ConvolutionSpecification:
    """Small layers of every family, cut into blocks of rows."""
    whole = draw(convolutions())
    rows = whole.image_output_shape[1]
    return replace(
        whole, block_rows=draw(st.sampled_from([count for count in range(1, rows + 1) if rows % count == 0]))
    )


def check_here(specification: Specification, target: Target, seed: int) -> None:
    case = make_case(str(specification), specification, target, seed)
    np.testing.assert_array_equal(
        run_here(case, target).view(np.uint32), case.expected.view(np.uint32), case.kernel.name
    )


@pytest.mark.parametrize("name", X86_64)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specification=convolutions(), seed=st.integers(0, 2**32 - 1))
def test_convolutions(name: str, specification: ConvolutionSpecification, seed: int) -> None:
    """A convolution of some shape has wrong integers or is rounded otherwise than by one fused multiply-add."""
    check_here(specification, runnable(name), seed)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specification=blocked_convolutions(), seed=st.integers(0, 2**32 - 1))
def test_blocks_of_rows(specification: ConvolutionSpecification, seed: int) -> None:
    """A block of rows of some shape differs from the same rows of the whole layer."""
    target = best_target()
    cases = block_cases(str(specification), specification, target, seed)
    function = compiled_here(cases[0], target)
    for case in cases:
        np.testing.assert_array_equal(
            call_here(function, case).view(np.uint32), case.expected.view(np.uint32), case.name
        )


@pytest.mark.parametrize("name", X86_64)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specification=packs(), seed=st.integers(0, 2**32 - 1))
def test_packs(name: str, specification: Specification, seed: int) -> None:
    """Sign or rounding differs at a threshold, at NaN, at a zero or at infinity, or tail bits are not 0."""
    check_here(specification, runnable(name), seed)


def test_portable_kernel() -> None:
    """What the table has for processors that are no target yet does not work on the first one of them."""
    here = best_target()
    unknown = replace(here, architecture="another", name="another")
    for seed, options in enumerate(({}, {"ternary": True}, {"tap_scaled": True, "group": 2})):
        specification = ConvolutionSpecification(2, 5, 6, 72, 20, (3, 3), (1, 2), (1, 1, 1, 1), **options)
        case = make_case("portable", specification, unknown, seed)
        assert case.kernel.name.endswith("u32x4_p3v1")
        np.testing.assert_array_equal(run_here(case, here).view(np.uint32), case.expected.view(np.uint32))


def test_threads() -> None:
    """Real threads change the result."""
    target = best_target()
    configure = tvm.get_global_func("runtime.config_threadpool")
    specification = ConvolutionSpecification(2, 14, 14, 64, 64, (3, 3), (1, 1), (1, 1, 1, 1))
    case = make_case("threads", specification, target, 0)
    try:
        for threads in (1, 4):
            configure(1, threads)
            np.testing.assert_array_equal(run_here(case, target), case.expected)
    finally:
        configure(1, 0)
