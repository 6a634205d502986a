"""Outputs of a graph keep their names and their number, whatever nodes go; and the model that was given stays as it is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.ops.registry import functions
from bnn_deploy.passes.onnx.canonicalise import canonicalise
from bnn_deploy.passes.onnx.import_report import ImportOptions
from bnn_deploy.passes.onnx.plain_form.normalise_graph import normalise_graph

NODE = helper.make_node
IMAGE = np.array([[-2, 0, 3, 1], [1, -1, 0, 2]], np.float32)
WEIGHT = np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]], np.float32)


def model_of(nodes: list[onnx.NodeProto], outputs: list[str], opset: int = 21) -> onnx.ModelProto:
    """A network of the input ``x`` (2, 4) and the constant ``w`` (4, 2)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in outputs],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    used = {node.op_type for node in model.graph.node if node.domain == "bnn_deploy"}
    model.functions.extend(function for function in functions() if function.name in used)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": IMAGE}), strict=True))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "nodes, outputs",
    [
        ([NODE("Relu", ["x"], ["r"]), NODE("Identity", ["r"], ["y"])], ["y"]),
        ([NODE("Relu", ["x"], ["r"]), NODE("Dropout", ["r"], ["y"])], ["y", "r"]),
        ([NODE("Relu", ["x"], ["r"]), NODE("Cast", ["r"], ["y"], to=1), NODE("Identity", ["r"], ["z"])], ["z", "y"]),
        ([NODE("Identity", ["x"], ["y"]), NODE("Dropout", ["x"], ["z"])], ["y", "z"]),
        ([NODE("Identity", ["w"], ["y"]), NODE("MatMul", ["x", "y"], ["z"])], ["y", "z", "w"]),
        ([NODE("Relu", ["x"], ["y"]), NODE("Relu", ["x"], ["z"])], ["y", "z"]),
    ],
    ids=["identity", "dropout-and-its-input", "twice", "of-the-input", "of-a-constant", "equal-nodes"],
)
def test_nodes_that_do_nothing_leave_the_outputs(nodes: list[onnx.NodeProto], outputs: list[str]) -> None:
    """Breaks if taking out an Identity renames an output of the file, or makes one value two outputs."""
    model = model_of(nodes, outputs)
    assert_same(run(ir.to_proto(normalise_graph(model))), run(model))


def test_signs_that_are_outputs_twice() -> None:
    """Breaks if two spellings of one sign, both outputs, become one output of two names, or lose them."""
    nodes = [
        NODE("Sign", ["x"], ["s"], name="s"),
        NODE("Sub", ["s", "x"], ["d"]),
        NODE("Add", ["d", "x"], ["t"], name="t"),
        NODE("MatMul", ["s", "w"], ["y"], name="one"),
        NODE("MatMul", ["t", "w"], ["z"], name="other"),
    ]
    model = model_of(nodes, ["t", "y", "s", "z"])
    canonical, report = canonicalise(model, ImportOptions(sign_zero="0"))
    assert [layer.binary for layer in report.layers] == [True, True]
    assert_same(run(canonical), run(model))


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_the_model_given_stays_as_it_is(opset: int) -> None:
    """Breaks if the front end renames constants in the protobuf it was given, which then is a reference no more."""
    nodes = [
        NODE("Sign", ["x"], ["s"]),
        NODE("MatMul", ["s", "w"], ["y"]),
        NODE("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32))),
        NODE("Add", ["y", "c"], ["z"]),
    ]
    model = model_of(nodes, ["z"], opset)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "v"))
    model.graph.node.append(NODE("Mul", ["z", "v"], ["u"]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, [None, None]))
    before = model.SerializeToString(deterministic=True)
    canonicalise(model, ImportOptions(sign_zero="0"))
    assert model.SerializeToString(deterministic=True) == before
