"""split_means: the mean of an image is the mean over its rows of the means along them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.split_means import split_means
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, operators


@pytest.mark.parametrize("axes", [[1, 2], [2, 1], [-2, -3]])
def test_mean_of_an_image_is_split(axes: list[int]) -> None:
    """Breaks: the global average is another one, or the whole image is read a second time."""
    before = build([(2, 3, 5, 4)], lambda emit, x: relax.op.mean(x, axes, keepdims=True))
    after = split_means(before)
    assert operators(after) == ["relax.mean", "relax.mean"]
    x = np.random.default_rng(0).integers(-9, 10, (2, 3, 5, 4))
    # Evaluated in float64: 15 terms of whole numbers, two roundings of 2^-53 of at most 9.
    np.testing.assert_allclose(evaluate(after, x), evaluate(before, x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("axes, keep", [([1, 2], False), ([1], True), ([3], True), ([1, 3], True), ([1, 2, 3], True)])
def test_other_means_stay(axes: list[int], keep: bool) -> None:
    """Breaks: a mean over other axes, or of another shape, is taken for a global average."""
    before = build([(2, 3, 5, 4)], lambda emit, x: relax.op.mean(x, axes, keepdims=keep))
    tvm.ir.assert_structural_equal(split_means(before), before)
