"""split_segments: concatenations are cut where the source changes, and compute the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import ir, relax, s_tir, tirx

from bnn_deploy.passes.relax.fuse_float import fuse_float
from bnn_deploy.passes.tir.schedule_float import schedule_float
from bnn_deploy.passes.tir.split_segments import split_segments
from bnn_deploy.targets.registry import host_target
from tests.passes.execute import run_function
from tests.passes.networks import build, constant, take

HOST = host_target()
NARROW = replace(HOST, vector_bits=128)


def only(body: object, *shapes: tuple[int, ...]) -> tirx.PrimFunc:
    module = fuse_float(build(list(shapes), body))
    (function,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return function


def choices(function: tirx.PrimFunc) -> int:
    """How many places choose their source by an index."""
    found = []

    def visit(call: ir.Call) -> None:
        if getattr(call.op, "name", "") == "prim.if_then_else":
            found.append(call)

    tvm_ffi.structural_walk(function.body, (ir.Call, visit))
    return len(found)


def blocks(function: tirx.PrimFunc) -> list[int]:
    """The number of stores in each block."""
    found = []

    def visit(block: s_tir.SBlock) -> None:
        if block.iter_vars:
            found.append(len(block.body.seq) if isinstance(block.body, tirx.SeqStmt) else 1)

    tvm_ffi.structural_walk(function.body, (s_tir.SBlock, visit))
    return found


def result(function: tirx.PrimFunc, *arrays: np.ndarray) -> np.ndarray:
    output = np.zeros([int(extent) for extent in function.params[-1].shape], np.float32)
    return run_function(function, NARROW, *arrays, output)[-1]


def whole_numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-9, 9, shape).astype(np.float32)


def test_segments_of_one_length_share_a_loop() -> None:
    """Breaks: BiMLP's tiled shortcuts and cos|sin pairs choose element by element, or read their operands twice."""
    function = only(lambda emit, x: relax.op.concat([x, x, x], axis=3), (1, 6, 5, 16))
    assert choices(function) > 0
    scheduled = schedule_float(function, NARROW)
    assert choices(scheduled) == 0 and blocks(scheduled) == [3]
    x = whole_numbers(1, 6, 5, 16)
    np.testing.assert_array_equal(result(scheduled, x, x, x), np.concatenate([x, x, x], axis=3))


def test_segments_without_a_common_length_are_loops_of_their_own() -> None:
    """Breaks: a concatenation of 8 and 7 channels chooses element by element."""
    scheduled = schedule_float(
        only(lambda emit, x, y: relax.op.concat([x, y], axis=3), (1, 2, 3, 8), (1, 2, 3, 7)), NARROW
    )
    assert choices(scheduled) == 0 and blocks(scheduled) == [1, 1]


def test_choices_along_another_axis_stay() -> None:
    """Breaks: a row-wise concatenation or padding is cut along the channels."""
    function = only(lambda emit, x: relax.op.concat([take(x, 1, 4, 6), take(x, 1, 0, 4)], axis=1), (1, 6, 5, 16))
    before = schedule_float(function, NARROW)
    assert choices(before) > 0
    assert split_segments(before, 4).same_as(before)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 24), min_size=2, max_size=4), st.sampled_from([1, 2]), st.sampled_from([HOST, NARROW]))
def test_any_concatenation_of_slices(channels: list[int], stride: int, target: object) -> None:
    """Breaks: a segment is stored elsewhere, an element at a boundary comes from the wrong source, or a stride is lost."""
    total = sum(channels)
    bias = np.arange(len(range(1, total, stride)), dtype=np.float32)

    def body(emit: object, *parts: relax.Expr) -> relax.Expr:
        return relax.op.add(take(relax.op.concat(list(parts), axis=2), 2, 1, total, stride), constant(bias))

    function = schedule_float(only(body, *[(2, 3, count) for count in channels]), target)
    parts = [whole_numbers(2, 3, count) for count in channels]
    expected = np.concatenate(parts, axis=2)[:, :, 1::stride] + bias
    np.testing.assert_array_equal(result(function, *parts, bias), expected)
