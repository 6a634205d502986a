"""What must hold of binary layers before they are compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.binary_layers import require_binary
from tests.onnx_files.good_model import good_model, node


def _without_binary(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((10, 3), np.float32), "real"))
    model.graph.node.append(helper.make_node("Gemm", ["input", "real"], ["logits"]))


def _computed_weights(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Identity", ["W"], ["W2"], name="copy"))
    node(model, "layer.1").input[1] = "W2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_binary, "No binary layers found in m.onnx: found 1 real-valued"),
        (_computed_weights, "'layer.1': its weights W must be an initializer"),
        (lambda m: node(m, "layer.1").input.__setitem__(0, "input"), "'layer.1' reads the real-valued tensor 'input'"),
        (lambda m: setattr(node(m, "cut"), "op_type", "Clip"), "'layer.1' reads the output of Clip node 'cut'"),
        (lambda m: node(m, "join").input.__setitem__(1, "input"), "'layer.1' reads the real-valued tensor 'input'"),
    ],
)
def test_what_cannot_be_compiled(change: Callable[[onnx.ModelProto], object], message: str) -> None:
    """Breaks when a binary layer with a real-valued input, or a model without binary layers, goes on to the compiler."""
    model = good_model()
    change(model)
    with pytest.raises(ModelFileError, match=message):
        require_binary(model, "m.onnx")
