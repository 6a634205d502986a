"""Operation counts on graphs small enough to count by hand."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.bits import pack_bits
from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.statistics import model_statistics
from bnn_deploy.ops.registry import DOMAIN, OPSET, STANDARD_OPSET, functions


def counted_model(batch: int | str = "batch", in_channels: int = 4) -> onnx.ModelProto:
    """Conv 3 -> 4 with bias, BatchNorm, Sign, BinaryConv 4 -> 6 in 2 groups, scale, mean, two heads 6 -> 5, averaged."""
    geometry = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "group": 2, "in_channels": in_channels}
    nodes = [
        helper.make_node("Conv", ["input", "stem", "stem_bias"], ["a"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["b"], name="bn"),
        helper.make_node("Sign", ["b", "threshold"], ["s"], name="sign", domain=DOMAIN),
        helper.make_node("BinaryConv", ["s", "W"], ["i"], name="conv", domain=DOMAIN, **geometry),
        helper.make_node("Mul", ["i", "scale"], ["c"], name="conv/Mul"),
        helper.make_node("ReduceMean", ["c", "axes"], ["p"], keepdims=0),
        helper.make_node("Gemm", ["p", "fc", "fc_bias"], ["h"], name="fc", transB=1),
        helper.make_node("Gemm", ["p", "fc2", "fc2_bias"], ["h2"], name="fc2", transB=1),
        helper.make_node("Add", ["h", "h2"], ["sum"]),
        helper.make_node("Div", ["sum", "two"], ["logits"]),
    ]
    arrays = {
        "stem": np.ones((4, 3, 3, 3), np.float32),
        "stem_bias": np.ones(4, np.float32),
        **{name: np.ones(4, np.float32) for name in ("gamma", "beta", "mean", "variance")},
        "threshold": np.float32(0),
        "W": pack_bits(np.ones((6, 18))),
        "scale": np.ones((1, 6, 1, 1), np.float32),
        "axes": np.array([2, 3]),
        **{name: np.ones((5, 6), np.float32) for name in ("fc", "fc2")},
        **{name: np.ones(5, np.float32) for name in ("fc_bias", "fc2_bias")},
        "two": np.float32(2),
    }
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 8, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions(), ir_version=10)


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_counts_by_hand(batch: int | str) -> None:
    """Breaks when the paper convention is lost: padding counted, biases not, heads merged, one image whatever the batch."""
    statistics = model_statistics(counted_model(batch), 1234)
    assert statistics.bops == 6 * 18 * (4 * 3)
    assert statistics.flops == 4 * 27 * (8 * 6) + 5 * 6
    assert statistics.ops == statistics.bops / 64 + statistics.flops
    assert statistics.binary_params == 6 * 18
    assert statistics.real_params == (4 * 27 + 4) + 2 * 4 + 2 * (5 * 6 + 5)
    assert statistics.file_bytes == 1234
    size = batch if isinstance(batch, int) else 1
    rows = [(row.name, row.op, row.kind, row.input_shape, row.output_shape) for row in statistics.layers]
    assert rows == [
        ("stem", "Conv", "float", (size, 3, 8, 6), (size, 4, 8, 6)),
        ("conv", "BinaryConv", "binary", (size, 4, 8, 6), (size, 6, 4, 3)),
        ("fc", "Gemm", "float", (size, 6), (size, 5)),
        ("fc2", "Gemm", "float", (size, 6), (size, 5)),
    ]
    assert [(row.bops, row.flops, row.binary_params, row.real_params) for row in statistics.layers] == [
        (0, 4 * 27 * 48, 0, 112),
        (6 * 18 * 12, 0, 108, 0),
        (0, 30, 0, 35),
        (0, 0, 0, 35),
    ]
    assert json.loads(json.dumps(statistics.to_dict()))["layers"][1]["bops"] == 6 * 18 * 12


def test_biases_count_where_the_file_says_so() -> None:
    """Breaks when BiMLP's convention (additions of biases are FLOPs) is ignored."""
    model = counted_model()
    helper.set_model_props(model, {"bnn_deploy.counts_biases": "true"})
    assert model_statistics(model, 0).flops == 4 * 28 * (8 * 6) + 5 * 7


def test_heads_that_are_used_apart_count_apart() -> None:
    """Breaks when layers that cannot be merged are counted as one."""
    model = counted_model()
    model.graph.output.append(helper.make_tensor_value_info("h2", TensorProto.FLOAT, ["batch", 5]))
    assert model_statistics(model, 0).flops == 4 * 27 * (8 * 6) + 2 * 5 * 6


def test_unknown_and_disagreeing_shapes_name_the_node() -> None:
    """Breaks when a model of dynamic size, or with operands that do not fit, gives wrong counts instead of an error."""
    model = counted_model()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ModelFileError, match=r"'stem': the shape of .* cannot be inferred"):
        model_statistics(model, 0)
    with pytest.raises(ModelFileError, match=r"'conv': .*in_channels is 6"):
        model_statistics(counted_model(in_channels=6), 0)
