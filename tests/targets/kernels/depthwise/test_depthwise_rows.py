"""Depthwise layers of few taps, which are computed a row of words at a time: shapes, borders and blocks of rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnn_deploy.targets.base import Target
from bnn_deploy.targets.kernels.depthwise.depthwise_rows import is_row_layer
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification
from bnn_deploy.targets.registry import cpu_targets, get_target, missing_cpu_flags
from tests.targets.cases import COLUMN, ROW, SAME, Case, layer, make_case
from tests.targets.program import Program

X86_64 = [target.name for target in cpu_targets() if target.architecture == "x86_64"]
VARIANTS = ({}, {"ternary": True}, {"tap_scaled": True}, {"ternary": True, "tap_scaled": True})

# Words per pixel that divide the vectors, are divided by them, neither; images narrower than the kernel.
LAYERS = {
    "row, 2 words": layer((1, 2, 15, 64), 64, group=64, **ROW),
    "row, 10 words of pairs": layer((1, 1, 8, 320), 160, group=160, **ROW),
    "row, 16 words": layer((1, 1, 7, 512), 512, group=512, **ROW),
    "row of pairs, batch 3": layer((3, 2, 9, 128), 64, group=64, **ROW),
    "row in one column": layer((1, 3, 1, 32), 32, group=32, **ROW),
    "column, 3 words": layer((1, 9, 5, 96), 96, group=96, **COLUMN),
    "column of pairs": layer((2, 8, 3, 192), 96, group=96, **COLUMN),
    "3x3": layer((1, 4, 6, 64), 64, group=64, **SAME),
    "2x3 of pairs, pads differ": layer((1, 4, 6, 64), 32, group=32, kernel_shape=(2, 3), pads=(1, 0, 0, 2)),
    "1x9": layer((1, 1, 17, 32), 32, group=32, kernel_shape=(1, 9), pads=(0, 4, 0, 4)),
    "no pads": layer((1, 3, 12, 64), 32, group=32, kernel_shape=(1, 7)),
    "one tap": layer((1, 2, 3, 32), 32, group=32),
}


def runnable(name: str) -> Target:
    """The target, or a skip that says what this processor lacks."""
    target = get_target(name)
    missing = missing_cpu_flags(target)
    if missing:
        pytest.skip(f"this processor lacks {' '.join(missing)}, which {name} needs")
    return target


def bank(target: Target, first_variant: int) -> list[Case]:
    """Every layer in two of the variants, which take turns from ``first_variant`` on."""
    cases = []
    for index, (name, plain) in enumerate(LAYERS.items()):
        assert is_row_layer(plain)
        for step in (0, 2):
            # Random bits seldom count to the largest code.
            options = VARIANTS[(index + first_variant + step) % len(VARIANTS)]
            every = index % 2 == 1
            cases.append(make_case(f"{name} {options}", replace(plain, **options), target, index, every))
    return cases


@pytest.mark.parametrize("name", X86_64)
def test_bank_on_x86_64(name: str, tmp_path: Path) -> None:
    """Wrong sums at a border or between pixels, writes outside of the output, or results that depend on the threads."""
    program = Program(bank(runnable(name), X86_64.index(name)), get_target(name), tmp_path)
    for parts in (1, 3):
        assert program.mismatches(program.run(parts=parts)) == []


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["arm64"])
def test_bank_on_arm64(name: str, tmp_path: Path) -> None:
    """The NEON lookups or the order of their bytes are wrong."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (Debian package qemu-user)")
    target = get_target(name)
    program = Program(bank(target, 1), target, tmp_path)
    assert program.mismatches(program.run([emulator])) == []


@st.composite
def row_layers(draw: st.DrawFn) -> ConvolutionSpecification:
    """Layers of the family, in blocks of rows or whole."""
    channels = draw(st.sampled_from([1, 2]))
    kernel_shape = draw(st.sampled_from([(1, 7), (7, 1), (1, 3), (2, 2), (3, 1)]))
    top, bottom = (draw(st.integers(0, kernel_shape[0] - 1)) for _ in range(2))
    left, right = (draw(st.integers(0, kernel_shape[1] - 1)) for _ in range(2))
    height = draw(st.integers(max(1, kernel_shape[0] - top - bottom), 9))
    words = draw(st.sampled_from([1, 2, 3, 8, 10, 16, 20]))
    plain = ConvolutionSpecification(
        batch=draw(st.integers(1, 3)),
        height=height,
        width=draw(st.integers(max(1, kernel_shape[1] - left - right), 12)),
        in_channels=32 * words,
        out_channels=32 * words // channels,
        kernel_shape=kernel_shape,
        pads=(top, left, bottom, right),
        group=32 * words // channels,
        ternary=draw(st.booleans()),
        tap_scaled=draw(st.booleans()),
    )
    rows = plain.output_shape[1]
    block_rows = draw(st.sampled_from([0, *(rows // parts for parts in range(1, rows + 1) if rows % parts == 0)]))
    return replace(plain, block_rows=block_rows)


def run_in_blocks(case: Case, target: Target) -> np.ndarray:
    """Y of the whole layer, from one call or from one call per block of rows."""
    layer_ = case.kernel.specification
    compiled = tvm.compile(
        case.kernel.build().with_attr("global_symbol", "kernel"), target=tvm.target.Target(target.llvm)
    )
    inputs = [tvm.runtime.tensor(array) for array in case.inputs]
    blocks = (
        layer_.image_output_shape[0] * layer_.image_output_shape[1] // layer_.block_rows if layer_.block_rows else 1
    )
    results = []
    for block in range(blocks):
        result = tvm.runtime.tensor(np.full(layer_.output_shape, np.nan, np.float32))
        compiled["kernel"](*inputs, result, *([block] if layer_.block_rows else []))
        results.append(result.numpy())
    return np.concatenate(results).reshape(layer_.image_output_shape)


@pytest.mark.parametrize("name", X86_64)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specification=row_layers(), seed=st.integers(0, 2**32 - 1))
def test_shapes_and_blocks(name: str, specification: ConvolutionSpecification, seed: int) -> None:
    """Some shape has wrong sums, or the blocks of rows put together are not the layer."""
    target = runnable(name)
    case = make_case(str(specification), specification, target, seed)
    found = run_in_blocks(case, target)
    np.testing.assert_array_equal(found.view(np.uint32), case.expected.view(np.uint32))
