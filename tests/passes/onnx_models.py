"""ONNX models written down in a few lines, with the operators of the ``bnn_deploy`` domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.ops.registry import DOMAIN, OPSET, STANDARD_OPSET, functions


def node(operator: str, inputs: str, output: str, name: str | None = None, **attributes: object) -> onnx.NodeProto:
    """``node("BinaryConv", "s w", "y", "block.conv", …)``; our operators are those of the domain, except ``ai.onnx.Sign``."""
    ours = operator in ("Sign", "Ternary", "BinaryConv", "TapScaledBinaryConv", "BinaryLinear")
    return helper.make_node(
        operator.removeprefix("ai.onnx."),
        inputs.split(),
        output.split(),
        name=output if name is None else name,
        domain=DOMAIN if ours else "",
        **attributes,
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Mapping[str, np.ndarray],
    output: str = "y",
    rank: int = 4,
) -> onnx.ModelProto:
    """A checked model with the float32 input ``x`` of ``shape`` and the float32 output ``output``."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)]
    graph = helper.make_graph(list(nodes), "network", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    used = {n.op_type for n in nodes if n.domain == DOMAIN}
    local = [function for function in functions() if function.name in used]
    result = helper.make_model(graph, opset_imports=opsets, functions=local, ir_version=10)
    onnx.checker.check_model(result)
    return result


def run(network: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The output under plain onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def packed(outputs: int, bits: int, seed: int = 0) -> np.ndarray:
    """Random packed weights."""
    signs = np.random.default_rng(seed).integers(0, 2, (outputs, bits), np.uint8)
    return np.packbits(signs, axis=1, bitorder="little")


def small_network(batch: int | str = "batch") -> onnx.ModelProto:
    """Stem, a binary block with roll, shortcut and PReLU, a spatial mean and two averaged heads; input (batch, 3, 8, 8)."""
    random = np.random.default_rng(0)
    geometry = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "in_channels": 12}

    def numbers(*shape: int) -> np.ndarray:
        return (random.integers(-8, 9, shape) / 8).astype("float32")

    constants = {
        "stem_weight": numbers(12, 3, 3, 3),
        "bias": numbers(1, 12, 1, 1),
        "zero": np.zeros(1, "float32"),
        "w": packed(12, 9 * 12),
        "scale": numbers(1, 12, 1, 1),
        "slope": numbers(12, 1, 1),
        **{name: np.array([value], np.int64) for name, value in {"b0": 6, "e0": 2**63 - 1, "b1": 0, "a": 2}.items()},
        "w1": numbers(12, 5),
        "w2": numbers(12, 5),
        "c1": numbers(5),
        "c2": numbers(5),
        "two": np.array(2, "float32"),
    }
    nodes = [
        node("Conv", "x stem_weight", "stem", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", "stem bias", "biased", "block.bias"),
        node("Sign", "biased zero", "s", "block.sign", zero=-1),
        node("Slice", "s b0 e0 a", "bottom", "block.roll.bottom"),
        node("Slice", "s b1 b0 a", "top", "block.roll.top"),
        node("Concat", "bottom top", "rolled", "block.roll", axis=2),
        node("BinaryConv", "rolled w", "conv", "block.binary", **geometry),
        node("Mul", "conv scale", "scaled", "block.scale"),
        node("Add", "scaled stem", "total", "block.add"),
        node("PRelu", "total slope", "act", "block.prelu"),
        node("GlobalAveragePool", "act", "pooled", "pool"),
        node("Flatten", "pooled", "flat", "flatten", axis=1),
        node("Gemm", "flat w1 c1", "h1", "head"),
        node("Gemm", "flat w2 c2", "h2", "head_dist"),
        node("Add", "h1 h2", "sum", "sum"),
        node("Div", "sum two", "y", "mean"),
    ]
    return model(nodes, [batch, 3, 8, 8], constants, rank=2)
