"""Which PyTorch module a node comes from, whatever exporter wrote the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.passes.onnx.plain_form.name_modules import name_modules

SCOPES = "pkg.torch.onnx.name_scopes"


def names_of(nodes: list, constants: list[str]) -> list[str]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in constants],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    name_modules(model.graph)
    return [str(node.name) for node in model.graph]


@pytest.mark.parametrize(
    "written, expected",
    [
        ("/net/net.0/MatMul", "net.0"),
        ("/feature.1/binary_3x3/MatMul", "feature.1.binary_3x3"),
        ("/mlp/mlp.0/mlp/mlp.2/conv/MatMul", "mlp.0.mlp.2.conv"),
        ("my_layer", "my_layer"),
    ],
)
def test_names_of_the_torchscript_exporter(written: str, expected: str) -> None:
    """Breaks if a layer is reported under another name than its module path."""
    assert names_of([helper.make_node("MatMul", ["x", "w"], ["y"], name=written)], ["w"]) == [expected]


def test_names_in_the_metadata_of_the_dynamo_exporter() -> None:
    """Breaks if the path in the metadata is not used, or two nodes of one module get one name."""
    layer = helper.make_node("MatMul", ["x", "w"], ["a"], name="node_mm")
    layer.metadata_props.add(key=SCOPES, value="['', 'body', 'body.2', 'mm']")
    after = helper.make_node("Mul", ["a", "a"], ["y"], name="node_mul")
    after.metadata_props.add(key=SCOPES, value="['', 'body', 'body.2', 'mul']")
    assert names_of([layer, after], ["w"]) == ["body.2", "body.2/Mul"]


def test_names_of_parameters_where_nodes_have_none() -> None:
    """Breaks if the layers of a Brevitas file, whose nodes are nameless, cannot be told apart."""
    nodes = [
        helper.make_node("Sign", ["f.3.weight"], ["signs"]),
        helper.make_node("MatMul", ["x", "signs"], ["a"]),
        helper.make_node("MatMul", ["a", "f.4.weight"], ["y"]),
    ]
    assert names_of(nodes, ["f.3.weight", "f.4.weight"])[1:] == ["f.3", "f.4"]


def test_a_shared_bias_names_no_layer() -> None:
    """Breaks if a layer is called after the module whose equal vector its exporter took for the layer's bias."""
    layer = helper.make_node("Gemm", ["x", "folded", "feature.1.bn1.bias"], ["y"], name="/feature.0/conv1/Gemm")
    assert names_of([layer], ["folded", "feature.1.bn1.bias"]) == ["feature.0.conv1"]
