"""One plain form for graphs of any exporter: what it computes stays the same, what is constant becomes a constant."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.passes.onnx.plain_form.normalise_graph import normalise_graph

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((6, 4, 3, 3)).astype(np.float32)
IMAGE = RANDOM.standard_normal((2, 4, 5, 5)).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int, *, constants_are_inputs: bool = False
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 5, 5])]
    if constants_are_inputs:
        inputs += [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in constants.items()
        ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        nodes, "g", inputs, [output], [numpy_helper.from_array(array, name) for name, array in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, image: np.ndarray = IMAGE) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0]


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def weights_from_real_weights() -> list[onnx.NodeProto]:
    """|w| mean times sign(w), as training code computes it in every forward pass."""
    return [
        helper.make_node("Abs", ["w"], ["magnitude"]),
        helper.make_node("ReduceMean", ["magnitude"], ["scale"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Sign", ["w"], ["signs"]),
        helper.make_node("Mul", ["scale", "signs"], ["binary"]),
        helper.make_node("Conv", ["x", "binary"], ["y"], pads=[1, 1, 1, 1]),
    ]


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
@pytest.mark.parametrize("constants_are_inputs", [False, True])
def test_weights_computed_in_the_graph_become_constants(opset: int, constants_are_inputs: bool) -> None:
    """Breaks if weights that a file computes from real ones stay nodes, in any version, so that no layer is found."""
    model = model_of(weights_from_real_weights(), {"w": WEIGHT}, opset, constants_are_inputs=constants_are_inputs)
    normal = normalise_graph(model)
    assert operators(normal) == ["Conv"]
    weight = normal.graph.node(0).inputs[1].const_value.numpy()
    expected = np.abs(WEIGHT).mean(axis=(1, 2, 3), keepdims=True) * np.sign(WEIGHT)
    # A mean of 36 float32 numbers: its rounding error is at most 36 * 2^-24 of it.
    np.testing.assert_allclose(weight, expected, rtol=36 * 2**-24)
    assert normal.opset_imports[""] >= 21
    # 36 products: the weights differ by 36 * 2^-24 of each, the two orders of summation by twice that of the sum.
    largest = np.abs(IMAGE).max() * np.abs(expected).sum(axis=(1, 2, 3)).max()
    np.testing.assert_allclose(run(ir.to_proto(normal)), run(model), atol=3 * 36 * 2**-24 * largest, rtol=0)


def test_bias_expanded_to_the_image_stays_one_number_per_channel() -> None:
    """Breaks if ``bias.expand_as(x)`` becomes a constant as large as the image, or the sum changes."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["bias", "shape"], ["expanded"]),
        helper.make_node("Add", ["x", "expanded"], ["y"]),
    ]
    model = model_of(nodes, {"bias": RANDOM.standard_normal((1, 4, 1, 1)).astype(np.float32)}, 17)
    normal = normalise_graph(model)
    assert operators(normal) == ["Add"]
    assert [value.shape.numpy() for value in normal.graph.initializers.values()] == [(1, 4, 1, 1)]
    np.testing.assert_array_equal(run(ir.to_proto(normal)), run(model))


def test_an_expand_that_enlarges_its_partner_stays() -> None:
    """Breaks if an Expand is dropped although the sum takes its shape from it."""
    nodes = [
        helper.make_node("Expand", ["bias", "shape"], ["expanded"]),
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Add", ["mean", "expanded"], ["y"]),
    ]
    constants = {
        "bias": RANDOM.standard_normal((1, 4, 1, 1)).astype(np.float32),
        "shape": np.array([1, 4, 3, 3], np.int64),
    }
    model = model_of(nodes, constants, 17)
    np.testing.assert_array_equal(run(ir.to_proto(normalise_graph(model))), run(model))


def test_nodes_without_effect_go() -> None:
    """Breaks if Dropout, Identity or a Cast to the same type stands between a sign and the layer that reads it."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    model = model_of(nodes, {}, 17)
    normal = normalise_graph(model)
    assert operators(normal) == ["Relu"]
    np.testing.assert_array_equal(run(ir.to_proto(normal)), run(model))


@pytest.mark.parametrize(
    ("written", "value"),
    [({"value_float": 0.5}, 0.5), ({"value_floats": [0.5]}, [0.5])],
    ids=["number", "list"],
)
def test_numbers_in_constant_nodes_become_initializers(written: dict[str, object], value: object) -> None:
    """Breaks if a threshold that an exporter writes as an attribute stays a node, which is no constant to what follows."""
    nodes = [helper.make_node("Constant", [], ["half"], **written), helper.make_node("Add", ["x", "half"], ["y"])]
    model = model_of(nodes, {}, 17)
    normal = normalise_graph(model)
    assert operators(normal) == ["Add"]
    (initializer,) = normal.graph.initializers.values()
    np.testing.assert_array_equal(initializer.const_value.numpy(), np.array(value, np.float32))
    np.testing.assert_array_equal(run(ir.to_proto(normal)), run(model))


def test_a_cast_to_another_type_stays() -> None:
    """Breaks if a Cast that rounds is taken for one without effect."""
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, {}, 17)
    np.testing.assert_array_equal(run(ir.to_proto(normalise_graph(model))), run(model))


def test_dynamic_reshape_to_constant_target() -> None:
    """Breaks if ``x.view(n, -1)`` with a dynamic batch keeps its Shape nodes or loses the batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axis"], ["first"]),
        helper.make_node("Concat", ["first", "size"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {name: np.array(value, np.int64) for name, value in (("zero", 0), ("axis", [0]), ("size", [100]))}
    model = model_of(nodes, constants, 17)
    normal = normalise_graph(model)
    assert operators(normal) == ["Reshape"]
    for batch in (1, 2):
        np.testing.assert_array_equal(run(ir.to_proto(normal), IMAGE[:batch]), run(model, IMAGE[:batch]))


def test_an_operator_set_that_cannot_be_raised_is_an_error() -> None:
    """Breaks if a file that onnx cannot convert ends in a traceback instead of one sentence."""
    nodes = [helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")]
    model = model_of(nodes, {}, 8)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelFileError, match="operator set 8 cannot be raised to 21"):
        normalise_graph(model)
