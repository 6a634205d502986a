"""MultiThreshold in standard operators: bit by bit what QONNX computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx
from tests.passes.onnx.qonnx.one_node import any_float, expanded, images, model_of, operators, qonnx_says


def activation(thresholds: np.ndarray, shape: list[int | str | None] | None, **attributes: object) -> onnx.ModelProto:
    """A node that reads the graph's input x of ``shape``."""
    inputs = {"x": None, "thresholds": thresholds}
    return model_of("MultiThreshold", inputs, {"x": shape, "y": shape}, out_dtype="INT8", **attributes)


def test_values_worked_by_hand() -> None:
    """Breaks when a value at its threshold does not count, or a channel gets another's thresholds."""
    thresholds = np.array([[0.5], [-1.0]], np.float32)
    x = np.array([[0.5, -1.0], [0.4, -1.1], [np.nan, np.inf]], np.float32)
    signs = activation(thresholds, ["batch", 2], out_scale=2.0, out_bias=-1.0)
    np.testing.assert_array_equal(expanded(signs, x=x), [[1, 1], [-1, -1], [-1, 1]])
    assert operators(signs) == ["GreaterOrEqual", "Where"]

    three = activation(np.array([[-0.5, 0.5]], np.float32), ["batch", 2], out_bias=-1.0)
    np.testing.assert_array_equal(expanded(three, x=x), [[1, -1], [0, -1], [-1, 1]])
    assert operators(three) == ["GreaterOrEqual", "Where", "GreaterOrEqual", "Where", "Add", "Add"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    layout, shape = draw(
        st.sampled_from(
            [
                *(("NC", [2, 3]), ("", [2, 3]), ("NCHW", [2, 3, 1, 2]), ("NHWC", [2, 1, 2, 3]), ("", [2, 3, 1, 2])),
                *(("NWC", [2, 2, 3]), ("", [2, 2, 3]), ("NCW", [2, 3, 2]), ("", [1, 3, 1, 1, 2])),
            ]
        )
    )
    count = draw(st.sampled_from([1, 1, 2, 3, 4, 7]))
    # In any order, and equal ones too: QONNX counts them all.
    thresholds = draw(arrays.arrays(np.float32, (draw(st.sampled_from([1, 3])), count), elements=any_float))
    scale, bias = draw(st.sampled_from([(1.0, 0.0), (2.0, -1.0), (0.3, 0.1), (-2.0, 1.0), (0.1, -7.0)]))
    known = ["batch", *shape[1:]]
    model = activation(thresholds, known, out_scale=scale, out_bias=bias, data_layout=layout)
    return model, draw(images(shape))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_as_qonnx_computes_it(case: tuple[onnx.ModelProto, np.ndarray]) -> None:
    """Breaks when a layout, the number of thresholds, the scale or the bias is read otherwise than by QONNX."""
    model, x = case
    np.testing.assert_array_equal(expanded(model, x=x), qonnx_says(model, x=x))


def test_shapes_after_other_qonnx_nodes() -> None:
    """Breaks when the channel's axis is lost behind a QONNX node, whose shape onnx cannot infer."""
    model = activation(np.array([[0.5], [-2.0]], np.float32), ["batch", 2, 1, 1])
    model.graph.node[0].input[0] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.75), "scale"))
    quantiser = onnx.helper.make_node("BipolarQuant", ["x", "scale"], ["before"], domain="onnx.brevitas")
    model.graph.node.insert(0, quantiser)
    x = np.array([1, 1, -1, -1], np.float32).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(expanded(model, x=x).ravel(), [1, 1, 0, 1])


def test_one_row_needs_no_shape() -> None:
    """Breaks when thresholds common to all channels are refused because the file gives no shape."""
    model = activation(np.array([[0.5]], np.float32), ["a", "b"])
    model.graph.node[0].input[0] = "hidden"
    shape = onnx.helper.make_tensor_value_info("shape", onnx.TensorProto.INT64, ["rank"])
    model.graph.input.append(shape)
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", "shape"], ["hidden"]))
    x = np.array([[0.5, 0.25]], np.float32)
    np.testing.assert_array_equal(expanded(model, x=x, shape=np.array([2, 1])), [[1], [0]])

    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((2, 1), np.float32), "thresholds"))
    with pytest.raises(ModelFileError, match="does not give the shape of 'hidden'"):
        expand_qonnx(model)


@pytest.mark.parametrize(
    ("thresholds", "attributes", "message"),
    [
        (np.zeros(3, np.float32), {}, r"has thresholds of shape \(3,\)"),
        (np.zeros((3, 0), np.float32), {}, r"has thresholds of shape \(3, 0\)"),
        (np.zeros((2, 1), np.float32), {}, r"for 2 channels on axis 1 of 'x', whose shape is \(\?, 3\)"),
        (np.zeros((3, 1), np.float32), {"data_layout": "NHWC"}, "for 3 channels on axis 3 of 'x'"),
        (np.full((1, 1), 0.1, np.float64), {}, "of type float64, which float32 does not hold exactly"),
        (np.zeros((3, 1), np.float32), {"out_scale": 2}, "has the attribute 'out_scale' = 2"),
    ],
)
def test_what_is_refused(thresholds: np.ndarray, attributes: dict[str, object], message: str) -> None:
    """Breaks when thresholds that do not fit give a traceback or a wrong network."""
    with pytest.raises(ModelFileError, match=rf"'layer\.quantiser' .*{message}"):
        expand_qonnx(activation(thresholds, ["batch", 3], **attributes))
