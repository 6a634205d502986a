"""shift_words: every word comes from the right pixel, also in blocks of rows and where registers do not divide the words."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import CompileError
from bnn_deploy.targets.kernels.specification import ShiftWordsSpecification
from bnn_deploy.targets.registry import host_target
from bnn_deploy.targets.table import select_kernel


@st.composite
def specifications(draw: st.DrawFn) -> ShiftWordsSpecification:
    height, words = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    segments = []
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, words - 1))
        count = draw(st.integers(1, words - first))
        segments.append((first, count, draw(st.integers(-9, 9)), draw(st.integers(-9, 9))))
    rows = draw(st.sampled_from([0, *(n for n in range(1, height + 1) if height % n == 0)]))
    return ShiftWordsSpecification(
        draw(st.integers(1, 2)), height, draw(st.integers(1, 6)), words, tuple(segments), rows
    )


@settings(max_examples=25, deadline=None)
@given(specification=specifications())
def test_words_move_as_numpy_rolls_them(specification: ShiftWordsSpecification) -> None:
    """A branch of a ShiftBlock sees another pixel, or another word, than PyTorch's roll gives it."""
    x = np.random.default_rng(0).integers(0, 2**32, specification.input_shape, np.uint32)
    runs = [np.roll(x[..., f : f + n], (-dr, -dc), (1, 2)) for f, n, dr, dc in specification.segments]
    expected = np.concatenate(runs, axis=3)
    kernel = select_kernel(specification, host_target())
    function = kernel.build().with_attr("global_symbol", "kernel")
    built = tvm.tirx.build(function, tvm.target.Target(host_target().llvm))
    blocks = x.shape[0] * x.shape[1] // specification.block_rows if specification.block_rows else 1
    found = []
    for block in range(blocks):
        y = tvm.runtime.tensor(np.full(specification.output_shape, 0xA5A5A5A5, np.uint32))
        built["kernel"](tvm.runtime.tensor(x), y, *([block] if specification.block_rows else []))
        found.append(y.numpy())
    np.testing.assert_array_equal(np.concatenate(found).reshape(expected.shape), expected)


@pytest.mark.parametrize("segments, rows", [((), 0), (((3, 2, 0, 0),), 0), (((0, 0, 1, 1),), 0), (((0, 4, 1, 1),), 3)])
def test_impossible_moves_are_refused(segments: tuple, rows: int) -> None:
    """A defect of a pass becomes a read outside of the image."""
    with pytest.raises(CompileError, match="shift_words"):
        ShiftWordsSpecification(1, 4, 4, 4, segments, rows)
