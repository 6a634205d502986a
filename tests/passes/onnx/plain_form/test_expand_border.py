"""expand_border: padding with the image itself moves the right elements."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_borders(mode: str) -> None:
    """Breaks if a pixel of the border is another one's copy."""
    nodes = [helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)]
    model = model_of(nodes, {"pads": np.array([0, 0, 3, 1, 0, 0, 2, 3])}, ["batch", 3, 5, 4])
    expected, found, operators = before_and_after(model, IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Gather", "Gather"]


def test_chosen_axes() -> None:
    """Breaks if pads are taken for those of other axes."""
    nodes = [helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"], mode="edge")]
    model = model_of(nodes, {"pads": np.array([1, 2]), "axes": np.array([-1])}, ["batch", 3, 5, 4])
    expected, found, operators = before_and_after(model, IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Gather"]


@pytest.mark.parametrize("mode, pads", [("constant", [0, 0, 1, 1, 0, 0, 1, 1]), ("reflect", [0, 0, -1, 0, 0, 0, 1, 0])])
def test_what_is_no_border_is_left(mode: str, pads: list[int]) -> None:
    """Breaks if zeros around an image, or cuts, become copies of it."""
    nodes = [helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)]
    expected, found, operators = before_and_after(model_of(nodes, {"pads": np.array(pads)}, ["batch", 3, 5, 4]), IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Pad"]
