"""fold_strided: a view of the flattened batch is a view of each image."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

IMAGE = np.random.default_rng(0).standard_normal((3, 4, 2, 1)).astype(np.float32)


def strided(offsets: np.ndarray, step: int, first: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """x.as_strided((n, *offsets.shape), …), as torch's dynamo exporter writes it."""
    rank = offsets.ndim
    nodes = [
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Squeeze", ["batch"], ["count"]),
        helper.make_node("Range", ["first", "count", "one"], ["images"]),
        helper.make_node("Mul", ["images", "step"], ["starts"]),
        helper.make_node("Unsqueeze", ["starts", "axes"], ["aligned"]),
        helper.make_node("Add", ["aligned", "offsets"], ["places"]),
        helper.make_node("Reshape", ["x", "all"], ["flat"]),
        helper.make_node("Gather", ["flat", "places"], ["y"]),
    ]
    constants = {"first": np.array(first), "one": np.array(1), "step": np.array(step), "all": np.array([-1])}
    constants |= {"axes": np.arange(1, rank + 1), "offsets": offsets[None]}
    return before_and_after(model_of(nodes, constants, ["batch", *IMAGE.shape[1:]]), IMAGE)


def test_elements_in_order() -> None:
    """Breaks if flatten behind a LayerNorm on channels stays a computation of places, of unknown shape."""
    expected, found, operators = strided(np.arange(8).reshape(8, 1), 8)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Reshape"]


def test_elements_in_another_order() -> None:
    """Breaks if elements of an image are confused."""
    expected, found, operators = strided(np.array([[7, 0, 3], [3, 1, 2]]), 8)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Reshape", "Gather", "Reshape"]


@pytest.mark.parametrize("step, first", [(4, 0), (8, 1)])
def test_what_reaches_into_another_image_is_left(step: int, first: int) -> None:
    """Breaks if overlapping or left-out images are taken for one view of each."""
    expected, found, operators = strided(np.arange(8), step, first)
    np.testing.assert_array_equal(found, expected)
    assert "Range" in operators
