"""Quant and IntQuant in standard operators: bit by bit what QONNX computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import expand_qonnx
from tests.passes.onnx.qonnx.one_node import expanded, images, model_of, operators, qonnx_says

SHAPES = {"x": ["batch", 3, 2], "y": ["batch", 3, 2]}
MODES = ["ROUND", "half_even", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


def quantiser(
    scale: object, zero_point: object, bits: object, op_type: str = "Quant", **attributes: object
) -> onnx.ModelProto:
    numbers = {"scale": scale, "zero_point": zero_point, "bits": bits}
    inputs = {name: np.asarray(number, np.float32) for name, number in numbers.items()}
    return model_of(op_type, {"x": None, **inputs}, SHAPES, **attributes)


@pytest.mark.parametrize(
    ("bits", "attributes", "expected"),
    [
        (1, {"signed": 1, "narrow": 0}, [-0.5, -0.5, 0.5, 0.5, 0.5, 0.5]),
        (1, {"signed": 0, "narrow": 0}, [0, 0, 0, 0, 0.5, 0.5]),
        (2, {"signed": 1, "narrow": 1}, [-0.5, 0, 0, 0, 0.5, 0.5]),
        (2, {"signed": 1, "narrow": 0}, [-1, 0, 0, 0, 0.5, 0.5]),
        (2, {"signed": 0, "narrow": 0}, [0, 0, 0, 0, 1, 1.5]),
        (2, {"signed": 0, "narrow": 1}, [0, 0, 0, 0, 1, 1]),
        (8, {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}, [-4.5, -0.5, 0, 0, 0.5, 4]),
        (8, {"signed": 1, "narrow": 0, "rounding_mode": "HALF_UP"}, [-4.5, -0.5, 0, 0, 1, 4]),
    ],
)
def test_values_worked_by_hand(bits: int, attributes: dict[str, object], expected: list[float]) -> None:
    """Breaks when ranges, rounding of halves or the signed bit are not QONNX's; x / scale is -9 -0.5 -0.0 0 1.5 8."""
    x = np.array([-4.5, -0.25, -0.0, 0.0, 0.75, 4], np.float32).reshape(1, 3, 2)
    result = expanded(quantiser(0.5, 0, bits, **attributes), x=x)
    np.testing.assert_array_equal(result.ravel(), expected)


@settings(max_examples=120, deadline=None)
@given(
    images([2, 3, 2]),
    st.sampled_from([1.0, 0.5, 0.3, 3.0, 1e30, -0.7, [[0.1], [1.0], [7.0]], [1.0, 0.25]]),
    st.sampled_from([0.0, 1.0, -2.5, [[0.0], [3.0], [1.0]]]),
    st.sampled_from([1, 1, 2, 3, 8, 16, 32]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(MODES),
)
def test_as_qonnx_computes_it(
    x: np.ndarray, scale: object, zero_point: object, bits: int, signed: bool, narrow: bool, mode: str
) -> None:
    """Breaks when any value of any quantiser differs from QONNX's, above all where a shortcut leaves out the division."""
    attributes = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": mode}
    model = quantiser(scale, zero_point, bits, **attributes)
    np.testing.assert_array_equal(expanded(model, x=x), qonnx_says(model, x=x))


def test_one_signed_bit_of_a_tiny_negative_number() -> None:
    """Breaks when the division is left out although it turns a negative number into zero, which counts as positive."""
    x = np.full((1, 3, 2), -1e-45, np.float32)
    np.testing.assert_array_equal(expanded(quantiser(4.0, 0, 1, signed=1), x=x), np.full((1, 3, 2), 4.0))
    np.testing.assert_array_equal(expanded(quantiser(0.5, 0, 1, signed=1), x=x), np.full((1, 3, 2), -0.5))


@pytest.mark.parametrize("op_type", ["Quant", "IntQuant"])
def test_shape_of_the_expansion(op_type: str) -> None:
    """Breaks when a one-bit or three-valued quantiser is spelt so that the recognisers do not know it."""
    assert operators(quantiser(0.5, 0, 1, op_type, signed=1)) == ["GreaterOrEqual", "Where", "Mul"]
    assert operators(quantiser(1, 0, 2, op_type, signed=1, narrow=1)) == ["Clip", "Round"]
    assert operators(quantiser(2, 1, 4, op_type, signed=0)) == ["Div", "Add", "Clip", "Round", "Sub", "Mul"]


def test_constant_nodes_as_parameters() -> None:
    """Breaks when the bit width of an exporter that writes Constant nodes is taken for a computed one."""
    model = quantiser(0.5, 0, 1, signed=1)
    del model.graph.initializer[:]
    constants = [
        onnx.helper.make_node("Constant", [], ["scale"], value_float=0.5),
        onnx.helper.make_node("Constant", [], ["zero_point"], value=onnx.numpy_helper.from_array(np.float32(0))),
        onnx.helper.make_node("Constant", [], ["bits"], value_floats=[1.0]),
    ]
    node = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString())
    del model.graph.node[:]
    model.graph.node.extend([*constants, node])
    x = np.array([-4.5, -0.25, -0.0, 0.0, 0.75, 4], np.float32).reshape(1, 3, 2)
    np.testing.assert_array_equal(expanded(model, x=x).ravel(), [-0.5, -0.5, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("bits", "attributes", "message"),
    [
        (0, {}, r"has the bit width 0\.0, which must be one whole number from 1 to 32"),
        (2.5, {}, "has the bit width 2.5"),
        (float("nan"), {}, "has the bit width nan"),
        ([[2.0], [4.0], [4.0]], {}, "has the bit width"),
        (4, {"rounding_mode": "SIDEWAYS"}, "has the rounding mode 'SIDEWAYS'; known are ROUND"),
        (4, {"rounding_mode": 3}, "has the attribute 'rounding_mode' = 3, which should be like 'ROUND'"),
        (4, {"rounding_mode": b"\xff"}, "has the attribute 'rounding_mode', which is not text"),
        (4, {"signed": "yes"}, "has the attribute 'signed' = 'yes'"),
    ],
)
def test_what_is_refused(bits: object, attributes: dict[str, object], message: str) -> None:
    """Breaks when a quantiser that QONNX does not define is expanded to something."""
    with pytest.raises(ModelFileError, match=rf"'layer\.quantiser' {message}"):
        expand_qonnx(quantiser(0.5, 0, bits, **attributes))


def test_a_computed_bit_width_is_refused() -> None:
    """Breaks when the range would be guessed."""
    model = quantiser(0.5, 0, 4)
    model.graph.node[0].input[3] = "computed"
    model.graph.node.insert(0, onnx.helper.make_node("Abs", ["bits"], ["computed"]))
    with pytest.raises(ModelFileError, match=r"computes its bit width \('computed'\)"):
        expand_qonnx(model)
