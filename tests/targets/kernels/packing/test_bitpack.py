"""Packing kernels: several planes of one tensor at once, and every number of channels around a register's width."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.kernel import Kernel
from bnn_deploy.targets.kernels.pack_specification import (
    MultiSignPackSpecification,
    MultiTernaryPackSpecification,
    SignPackSpecification,
    TernaryPackSpecification,
)
from bnn_deploy.targets.registry import cpu_targets, get_target, missing_cpu_flags
from bnn_deploy.targets.table import select_kernel
from tests.targets import reference
from tests.targets.cases import Case, make_case
from tests.targets.program import Program

X86_64 = [target.name for target in cpu_targets() if target.architecture == "x86_64"]
SPECIAL = np.array([np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, 1e-45, 0.5, -0.5], np.float32)
Many = MultiSignPackSpecification | MultiTernaryPackSpecification


def many_case(
    specification: Many, target: Target, seed: int
) -> tuple[Kernel, tuple[np.ndarray, ...], list[np.ndarray]]:
    """The kernel, (X, thresholds or biases) with half of the comparisons at or beside equality, and every plane's words."""
    random = np.random.default_rng(seed)
    sign = isinstance(specification, MultiSignPackSpecification)
    shape = (specification.planes, specification.channels)
    offsets = random.choice(np.array([0.0, -0.0, 0.25, -1.5, 1e-8, 3e7], np.float32), shape)
    offsets = np.where(random.random(shape) < 0.1, random.choice(SPECIAL, shape), offsets).astype(np.float32)
    x = random.standard_normal(specification.input_shape).astype(np.float32)
    own = np.broadcast_to(offsets[random.integers(0, specification.planes)], x.shape)
    bounds = own if sign else random.choice(np.array([-0.5, 0.5], np.float32), x.shape) - own
    beside = np.nextafter(bounds, random.choice(np.array([-np.inf, np.inf], np.float32), x.shape))
    x = np.choose(random.integers(0, 4, x.shape), [x, x, bounds, beside])
    x = np.where(random.random(x.shape) < 0.1, random.choice(SPECIAL, x.shape), x).astype(np.float32)
    planes = []
    with np.errstate(invalid="ignore"):
        for offset in offsets:
            if sign:
                planes.append(reference.sign_words(x, offset, specification.zero))
            else:
                total = x + offset
                words = [reference.pack_channels(np.abs(total) > 0.5), reference.pack_channels(total > 0.5)]
                planes.append(np.stack(words, axis=2))
    return select_kernel(specification, target), (x, offsets), planes


@st.composite
def manies(draw: st.DrawFn) -> Many:
    """Small calls of both kernels."""
    sizes = draw(st.tuples(*[st.integers(1, 3)] * 3))
    channels = draw(st.one_of(st.integers(1, 70), st.sampled_from([96, 128, 160, 224, 255, 257])))
    planes = draw(st.integers(1, 5))
    if draw(st.booleans()):
        return MultiTernaryPackSpecification(*sizes, channels, planes)
    return MultiSignPackSpecification(*sizes, channels, planes, draw(st.sampled_from([-1, 0, 1])))


@pytest.mark.parametrize("name", X86_64)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specification=manies(), seed=st.integers(0, 2**32 - 1))
def test_many(name: str, specification: Many, seed: int) -> None:
    """A plane has the bits of another one, or differs from packing it alone at equality, NaN or a zero."""
    target = get_target(name)
    if missing_cpu_flags(target):
        pytest.skip(f"this processor cannot run {name}")
    kernel, inputs, expected = many_case(specification, target, seed)
    compiled = tvm.compile(kernel.build().with_attr("global_symbol", "kernel"), target=tvm.target.Target(target.llvm))
    outputs = [tvm.runtime.tensor(np.full(plane.shape, 0xA5A5A5A5, np.uint32)) for plane in expected]
    compiled["kernel"](*(tvm.runtime.tensor(array) for array in inputs), *outputs)
    for output, plane in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(output.numpy(), plane)


@pytest.mark.qemu
def test_arm64(tmp_path: Path) -> None:
    """The sums of bytes lose or reorder bits for some number of channels, or a tail is written too wide."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (Debian package qemu-user)")
    target = get_target("arm64")
    cases, expected = [], []
    for seed, channels in enumerate([7, 32, 64, 96, 128, 135, 160, 224, 300]):
        sign = SignPackSpecification(2, 1, 2, channels, (1, 1, 1, channels), zero=(-1) ** seed)
        for single in (sign, replace(sign, zero=0), TernaryPackSpecification(2, 1, 2, channels)):
            cases.append(make_case(str(single), single, target, seed))
            expected.append([cases[-1].expected])
        sizes = (2, 1, 2, channels, 3)
        for many in (
            MultiSignPackSpecification(*sizes),
            MultiSignPackSpecification(*sizes, zero=0),
            MultiTernaryPackSpecification(*sizes),
        ):
            kernel, inputs, planes = many_case(many, target, seed)
            # What lies in the planes before must be overwritten.
            cases.append(Case(kernel.name, kernel, (*inputs, *(~plane for plane in planes[:-1])), planes[-1]))
            expected.append(planes)
    program = Program(cases, target, tmp_path)
    memory = program.run([emulator])
    wanted = program.before.copy()
    for offsets, planes in zip(program.offsets, expected, strict=True):
        for offset, plane in zip(offsets[-len(planes) :], planes, strict=True):
            wanted[offset : offset + plane.nbytes] = plane.reshape(-1).view(np.uint8)
    np.testing.assert_array_equal(memory, wanted)


@pytest.mark.parametrize("planes", [0, -1])
def test_no_planes_are_refused(planes: int) -> None:
    """A kernel without outputs is built, or the reason is not said."""
    with pytest.raises(CompileError, match="sign_pack_many needs planes >= 1"):
        MultiSignPackSpecification(1, 1, 1, 32, planes)
    with pytest.raises(CompileError, match="ternary_pack_many needs planes >= 1"):
        MultiTernaryPackSpecification(1, 1, 1, 32, planes)
