"""BipolarQuant in standard operators: bit by bit what QONNX computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx
from tests.passes.onnx.qonnx.one_node import expanded, images, model_of, operators, qonnx_says

SHAPES = {"x": ["batch", 3, 2], "y": ["batch", 3, 2]}


def quantiser(scale: object, dtype: type = np.float32) -> onnx.ModelProto:
    return model_of("BipolarQuant", {"x": None, "scale": np.asarray(scale, dtype)}, SHAPES)


def test_values_worked_by_hand() -> None:
    """Breaks when a zero of either sign, NaN or a denormal number falls on the wrong side."""
    x = np.array([[[0.0, -0.0], [np.nan, 1e-45], [-1e-45, -np.inf]]], np.float32)
    np.testing.assert_array_equal(expanded(quantiser(0.25), x=x), [[[0.25, 0.25], [-0.25, 0.25], [-0.25, -0.25]]])


@settings(max_examples=40, deadline=None)
@given(
    images([2, 3, 2]),
    st.sampled_from([1.0, 0.1, -0.5, [0.1], [[0.5], [2.0], [0.0]], [1.0, 1.0], np.ones((4, 2, 3, 2))]),
)
def test_as_qonnx_computes_it(x: np.ndarray, scale: object) -> None:
    """Breaks when a scale, also one per channel or one that broadcasts x, is applied otherwise than in QONNX."""
    # The last scale has more axes than x.
    shapes = {**SHAPES, "y": ["more", "batch", 3, 2]} if np.ndim(scale) == 4 else SHAPES
    model = model_of("BipolarQuant", {"x": None, "scale": np.asarray(scale, np.float32)}, shapes)
    np.testing.assert_array_equal(expanded(model, x=x), qonnx_says(model, x=x))


def test_computed_scales() -> None:
    """Breaks when a scale that is no constant is lost."""
    model = model_of("BipolarQuant", {"x": None, "scale": None}, {**SHAPES, "scale": [3, 1]})
    x, scale = np.float32([[[1, -1], [2, -2], [0, -0.0]]]), np.float32([[1], [3], [-5]])
    np.testing.assert_array_equal(expanded(model, x=x, scale=scale), [[[1, -1], [3, -3], [-5, -5]]])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1.0, ["GreaterOrEqual", "Where"]),
        ([1.0], ["GreaterOrEqual", "Where"]),
        ([[1.0], [1.0], [1.0]], ["GreaterOrEqual", "Where"]),
        (0.5, ["GreaterOrEqual", "Where", "Mul"]),
        ([[[[1.0]]]], ["GreaterOrEqual", "Where", "Mul"]),
    ],
)
def test_shape_of_the_expansion(scale: object, expected: list[str]) -> None:
    """Breaks when the recognisers meet another spelling than the one they know; the last scale adds an axis."""
    assert operators(quantiser(scale)) == expected


def test_names_and_metadata() -> None:
    """Breaks when a layer loses the PyTorch module that its node came from."""
    nodes = expand_qonnx(quantiser(0.5)).graph.node
    assert [node.name for node in nodes] == [
        "layer.quantiser/GreaterOrEqual",
        "layer.quantiser",
        "layer.quantiser/Mul",
    ]
    assert all([entry.value for entry in node.metadata_props] == ["layer"] for node in nodes)


def test_other_float_types() -> None:
    """Breaks when constants are made in float32 for a model of another type, or mixed types pass."""
    model = quantiser(0.5, np.float16)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    x = np.float16([[[1, -1], [0, 3], [-2, 2]]])
    np.testing.assert_array_equal(expanded(model, x=x), np.float16([[[0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]]))

    with pytest.raises(ModelFileError, match=r"'layer\.quantiser' reads DOUBLE, FLOAT, but all it reads must be"):
        expand_qonnx(quantiser(0.5, np.float64))


def test_wrong_number_of_inputs() -> None:
    """Breaks when a malformed node gives a traceback."""
    model = quantiser(0.5)
    del model.graph.node[0].input[1]
    with pytest.raises(ModelFileError, match=r"'layer\.quantiser' needs 2 inputs and one output, found 1 and 1"):
        expand_qonnx(model)
