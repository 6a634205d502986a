"""fold_extents: what is known of a shape becomes a number, though the batch is dynamic."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.passes.onnx.plain_form.one_operator import before_and_after, model_of

IMAGE = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)


def test_channel_shuffle() -> None:
    """Breaks if x.view(n, 2, c // 2, h, w), as torch's older exporter writes it, stays a computation with unknown shapes."""
    gather = [helper.make_node("Gather", ["shape", f"place_{i}"], [f"extent_{i}"]) for i in range(4)]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        *gather,
        helper.make_node("Div", ["extent_1", "two"], ["half"]),
        *(
            helper.make_node("Unsqueeze", [name, "zero"], [f"{name}_1"])
            for name in ("extent_0", "half", "extent_2", "extent_3")
        ),
        helper.make_node("Concat", ["extent_0_1", "two_1", "half_1", "extent_2_1", "extent_3_1"], ["parts"], axis=0),
        helper.make_node("Reshape", ["x", "parts"], ["split"]),
        helper.make_node("Transpose", ["split"], ["swapped"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["swapped", "shape"], ["y"]),
    ]
    constants = {f"place_{i}": np.array(i) for i in range(4)}
    constants |= {"two": np.array(2), "two_1": np.array([2]), "zero": np.array([0])}
    expected, found, operators = before_and_after(model_of(nodes, constants, ["batch", 6, 3, 4]), IMAGE)
    np.testing.assert_array_equal(found, expected)
    assert operators == ["Reshape", "Transpose", "Reshape"]


def test_the_batch_is_not_a_number() -> None:
    """Breaks if a file for any batch is compiled for the one it was exported with, or a slice takes the wrong extents."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["spatial"]),
        helper.make_node("Slice", ["shape", "zero", "from"], ["others"]),
        helper.make_node("ReduceProd", ["spatial"], ["pixels"], keepdims=1),
        helper.make_node("ReduceProd", ["others"], ["images"], keepdims=1),
        helper.make_node("Div", ["pixels", "images"], ["ratio"]),
        helper.make_node("Cast", ["ratio"], ["number"], to=1),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    constants = {"from": np.array([2]), "to": np.array([2**62]), "zero": np.array([0])}
    model = model_of(nodes, constants, ["batch", 6, 3, 4])
    for count in (1, 2):
        expected, found, operators = before_and_after(model, np.repeat(IMAGE[:1], count, 0))
        np.testing.assert_array_equal(found, expected)
        assert "Shape" in operators
