"""Whole models with QONNX nodes: every domain, old operator sets, subgraphs, functions, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.passes.onnx.qonnx.expand_qonnx import EXPANSIONS, expand_qonnx
from tests.passes.onnx.qonnx.one_node import DOMAIN, expanded, model_of

X = np.array([[-2.0, 0.0], [3.0, -0.5]], np.float32)
SHAPES = {"x": ["batch", 2], "y": ["batch", 2]}


def quantised(domain: str = DOMAIN) -> onnx.ModelProto:
    return model_of("BipolarQuant", {"x": None, "scale": np.float32(0.5)}, SHAPES, domain)


@pytest.mark.parametrize(
    "domain", ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "finn", "qonnx.custom_op.other"]
)
def test_domains(domain: str) -> None:
    """Breaks when nodes of an older exporter stay as they are, or their operator set stays declared."""
    model = quantised(domain)
    before = model.SerializeToString()
    result = expand_qonnx(model)
    assert [entry.domain for entry in result.opset_import] == [""]
    assert model.SerializeToString() == before
    np.testing.assert_array_equal(expanded(model, x=X), [[-0.5, 0.5], [0.5, -0.5]])


def test_other_models_are_returned_as_they_are() -> None:
    """Breaks when models without QONNX nodes are copied or changed."""
    model = expand_qonnx(quantised())
    assert expand_qonnx(model) is model


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 21])
def test_old_operator_sets(opset: int) -> None:
    """Breaks when the standard nodes of an old file are read by the rules of the new one, or the other way round."""
    model = quantised()
    model.graph.node[0].output[0] = "signs"
    # Until version 12 the axes of Squeeze are an attribute; from 13 on an input.
    if opset < 13:
        squeeze = helper.make_node("Squeeze", ["signs"], ["y"], axes=[0])
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        squeeze = helper.make_node("Squeeze", ["signs", "axes"], ["y"])
    model.graph.node.append(squeeze)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.opset_import[0].version = opset
    model.ir_version = 4
    np.testing.assert_array_equal(expanded(model, x=X[:1]), [-0.5, 0.5])


def test_a_file_without_standard_operators() -> None:
    """Breaks when a file that declares QONNX's operator set alone cannot be expanded."""
    model = quantised()
    del model.opset_import[0]
    np.testing.assert_array_equal(expanded(model, x=X), [[-0.5, 0.5], [0.5, -0.5]])


def test_subgraphs() -> None:
    """Breaks when a node in the branch of an If is missed, or does not see the constants outside of the branch."""
    branches = {}
    for branch, scale in (("then_branch", "scale"), ("else_branch", "other")):
        node = helper.make_node("BipolarQuant", ["x", scale], [f"{scale}_y"], domain=DOMAIN, name=branch)
        value = helper.make_tensor_value_info(f"{scale}_y", TensorProto.FLOAT, ["batch", 2])
        branches[branch] = helper.make_graph([node], branch, [], [value])
    branches["else_branch"].initializer.append(numpy_helper.from_array(np.float32(2), "other"))
    model = quantised()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("If", ["condition"], ["y"], **branches))
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    np.testing.assert_array_equal(expanded(model, x=X, condition=np.array(True)), [[-0.5, 0.5], [0.5, -0.5]])
    np.testing.assert_array_equal(expanded(model, x=X, condition=np.array(False)), [[-2, 2], [2, -2]])


def test_functions() -> None:
    """Breaks when nodes inside of model-local functions are missed."""
    body = [helper.make_node("BipolarQuant", ["a", "b"], ["c"], domain=DOMAIN)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    inner = helper.make_function("local", "Inner", ["a", "b"], ["c"], body, opsets)
    call = [helper.make_node("Inner", ["a", "b"], ["c"], domain="local")]
    outer = helper.make_function(
        "local", "Outer", ["a", "b"], ["c"], call, [opsets[0], helper.make_opsetid("local", 1)]
    )
    model = quantised()
    model.functions.extend([inner, outer])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Outer", "local"
    model.opset_import.append(helper.make_opsetid("local", 1))
    np.testing.assert_array_equal(expanded(model, x=X), [[-0.5, 0.5], [0.5, -0.5]])


def test_names_stay_unique_and_nothing_is_left_over() -> None:
    """Breaks when a new value takes the name of an old one, or scales that nobody reads stay in the file."""
    model = model_of("Quant", {"x": None, **{name: np.float32(1) for name in ("s", "z", "b")}}, SHAPES, signed=1)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.float32(0), "z"))
    model.graph.node[0].output[0] = "q"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(7), "q.threshold"))
    model.graph.node.append(helper.make_node("Mul", ["q", "q.threshold"], ["y"]))
    result = expand_qonnx(model)
    names = [tensor.name for tensor in result.graph.initializer]
    assert len(set(names)) == len(names) and not {"s", "z", "b"}.intersection(names)
    np.testing.assert_array_equal(expanded(model, x=X), [[-7, 7], [7, -7]])


def test_annotations_of_finn_go() -> None:
    """Breaks when notes about values that are gone stay in the file."""
    model = quantised()
    note = model.graph.quantization_annotation.add(tensor_name="scale")
    note.quant_parameter_tensor_names.add(key="finn_datatype", value="FLOAT32")
    assert not expand_qonnx(model).graph.quantization_annotation


@pytest.mark.parametrize(
    ("domain", "op_type"),
    [
        *((DOMAIN, op_type) for op_type in ("Trunc", "FloatQuant", "Im2Col", "QuantAvgPool2d", "MaxPoolNHWC")),
        ("qonnx.custom_op.channels_last", "Conv"),
        ("finn", "StreamingFCLayer_Batch"),
        ("finn.custom_op.fpgadataflow", "MatrixVectorActivation"),
    ],
)
def test_what_is_refused(domain: str, op_type: str) -> None:
    """Breaks when an operator without expansion gives a traceback, or goes on to a runtime that does not know it."""
    model = quantised(domain)
    model.graph.node[0].op_type = op_type
    with pytest.raises(ModelFileError, match=rf"{op_type} node 'layer\.quantiser' of the domain '{domain}' is not"):
        expand_qonnx(model)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="QONNX wants an older onnx than bnn-deploy on Python 3.10")
def test_every_operator_of_qonnx_is_known_or_refused() -> None:
    """Breaks when the table names an operator that QONNX does not have, or has under another name."""
    from qonnx.custom_op import general

    assert set(EXPANSIONS) <= set(general.__all__)


def test_an_operator_set_that_cannot_be_raised_is_an_error() -> None:
    """Breaks when old operators that onnx cannot convert stay as they are, and are read by the rules of the new ones."""
    model = quantised()
    model.graph.node[0].output[0] = "signs"
    model.graph.node.append(helper.make_node("NoSuchOperator", ["signs"], ["y"]))
    model.opset_import[0].version = 9
    with pytest.raises(
        ModelFileError, match=r"cannot convert the operators of version 9 to version 13.*opset_version=13"
    ):
        expand_qonnx(model)


def test_nodes_without_inputs() -> None:
    """Breaks when onnx's own error about a node without inputs comes through as a traceback."""
    model = quantised()
    del model.graph.node[0].input[:]
    with pytest.raises(ModelFileError, match=r"'layer\.quantiser' needs|cannot infer the shapes"):
        expand_qonnx(model)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Breaks when a malformed node gets past the loader and its expansion raises anything but ModelFileError."""
    content = bytearray(data.draw(st.sampled_from(damaged_from())))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        expand_qonnx(load_onnx(path))
    except ModelFileError as error:
        assert str(error)


def damaged_from() -> list[bytes]:
    """Files with one node of each kind."""
    numbers = {"scale": np.float32(0.5), "zero_point": np.float32(1), "bits": np.float32(3)}
    thresholds = np.array([[0.5], [-1.0]], np.float32)
    attributes = {"out_scale": 2.0, "data_layout": "NC"}
    models = [
        quantised(),
        model_of("Quant", {"x": None, **numbers}, SHAPES, signed=1, narrow=0, rounding_mode="ROUND"),
        model_of("MultiThreshold", {"x": None, "thresholds": thresholds}, SHAPES, **attributes),
        model_of("XnorPopcountMatMul", {"x": None, "weights": np.eye(2, dtype=np.float32)}, SHAPES),
    ]
    # An old operator set, so that the conversion takes part.
    models[1].opset_import[0].version = 11
    return [model.SerializeToString() for model in models]
