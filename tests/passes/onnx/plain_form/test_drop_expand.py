"""drop_expand: a number repeated to the shape of another operand is read as it is; one that enlarges it stays repeated."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

IMAGE = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)
BIAS = np.arange(6, dtype=np.float32).reshape(6, 1, 1)


def repeated(extents: list[int | str], *makes_the_shape: object, **constants: object) -> tuple:
    """What ``before_and_after`` says of x plus a bias that is repeated to ``shape``."""
    nodes = [*makes_the_shape, helper.make_node("Expand", ["bias", "shape"], ["whole"])]
    nodes.append(helper.make_node("Add", ["x", "whole"], ["y"]))
    return before_and_after(model_of(nodes, {"bias": BIAS, **constants}, extents), IMAGE)


@pytest.mark.parametrize("batch", [2, "batch"])
def test_a_number_of_the_shape_of_another_value_is_not_repeated(batch: int | str) -> None:
    """Breaks if ``bias.expand_as(y)``, where y has the shape of x but is not x, is computed over every pixel."""
    made = [helper.make_node("Abs", ["x"], ["other"]), helper.make_node("Shape", ["other"], ["shape"])]
    expected, found, operators = repeated([batch, 6, 3, 4], *made)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Add"]


def test_a_number_that_enlarges_the_other_operand_is_repeated() -> None:
    """Breaks if a repetition to more images than x has is dropped, and the result is smaller."""
    expected, found, _ = repeated(["batch", 6, 3, 4], shape=np.array([4, 1, 6, 3, 4]))
    assert found.shape == (4, 2, 6, 3, 4)
    np.testing.assert_array_equal(found, expected)
