"""expand_resize: picking and weighing elements computes what onnxruntime's Resize does, in every mode."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 6, 10)).astype(np.float32)
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
# Weights rounded to 2^-24 of 1, twice two or four taps: errors of at most 2 * 4 * 2^-23 of sums of weights up to
# (1 + 4 * 0.15)^2, times values up to 4. A position wrong by one element differs by about 1.
TOLERANCE = 2 * 4 * 2.0**-23 * 2.6 * 4


def resized(inputs: list[str], constants: dict[str, np.ndarray], **attributes: object) -> list[str]:
    nodes = [helper.make_node("Resize", ["x", *inputs], ["y"], **attributes)]
    expected, found, operators = before_and_after(model_of(nodes, constants, ["batch", *IMAGE.shape[1:]]), IMAGE)
    if attributes["mode"] == "nearest":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    return operators


@pytest.mark.parametrize("scales", [(2, 2), (1.5, 0.7), (1, 3)])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales(mode: str, coordinates: str, scales: tuple[float, float]) -> None:
    """Breaks if an enlarged or reduced image is shifted, or its border is."""
    constants = {"scales": np.array([1, 1, *scales], np.float32)}
    operators = resized(["", "scales"], constants, mode=mode, coordinate_transformation_mode=coordinates)
    assert "Resize" not in operators and "Gather" in operators


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_ceil", "round_prefer_floor"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
def test_nearest_rounds_as_asked(rounding: str, coordinates: str) -> None:
    """Breaks if a neighbour is the other one, and with it whether signs move to the right place."""
    constants = {"sizes": np.array([9, 4])}
    attributes = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
    operators = resized(["", "", "sizes"], constants, axes=[2, 3], **attributes)
    assert set(operators) == {"Gather"}


def test_cubic_without_what_is_outside() -> None:
    """Breaks if weights at the border are not those of the elements that exist."""
    constants = {"sizes": np.array([11, 25])}
    attributes = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    assert "Resize" not in resized(["", "", "sizes"], constants, axes=[-2, -1], **attributes)


def test_sizes_beside_a_dynamic_batch() -> None:
    """Breaks if interpolate(size=...) of PyTorch, which writes the batch into the sizes, stays a Resize of unknown size."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["kept"]),
        helper.make_node("Concat", ["kept", "wanted"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    constants = {"zero": np.array([0]), "two": np.array([2]), "wanted": np.array([12, 7])}
    model = model_of(nodes, constants, ["batch", *IMAGE.shape[1:]])
    expected, found, operators = before_and_after(model, IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Gather", "Gather"]


def test_antialias_is_left() -> None:
    """Breaks if a filter that adds up more elements is taken for plain interpolation."""
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)]
    model = model_of(nodes, {"scales": np.array([1, 1, 0.5, 0.5], np.float32)}, ["batch", *IMAGE.shape[1:]])
    assert before_and_after(model, IMAGE)[2] == ["Resize"]
