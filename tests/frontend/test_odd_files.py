"""Files that no exporter writes, but anybody can: one clear sentence, or the model, but never a traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.passes.onnx.import_report import ImportOptions


def model() -> onnx.ModelProto:
    """Sign, a binary layer, Relu."""
    nodes = [
        helper.make_node("Sign", ["x"], ["s"], name="sign"),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="layer"),
        helper.make_node("Relu", ["y"], ["z"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("scopes", ["[", "[]", "1", "{}", "None", "[1, 2]", "(" * 300, "['', 'layer', 'matmul']"])
def test_notes_of_an_exporter_may_hold_anything(scopes: str, tmp_path: Path) -> None:
    """Breaks if the metadata by which nodes are named, which anybody can write, ends in a traceback."""
    odd = model()
    odd.graph.node[1].metadata_props.append(onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=scopes))
    onnx.save(odd, str(tmp_path / "x.onnx"))
    (layer,) = open_model(tmp_path / "x.onnx", ImportOptions(sign_zero="0")).report.layers
    assert layer.name == "layer" and layer.binary


def test_operators_of_one_runtime_are_named(tmp_path: Path) -> None:
    """Breaks if an operator of a foreign domain is called a defect of this compiler, or goes without its name."""
    odd = model()
    odd.graph.node[2].op_type, odd.graph.node[2].domain = "Gelu", "com.microsoft"
    odd.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(odd, str(tmp_path / "x.onnx"))
    with pytest.raises(ModelFileError, match=r"'relu' is a Gelu of the domain 'com\.microsoft'"):
        open_model(tmp_path / "x.onnx")
