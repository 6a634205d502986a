"""Small graphs of activations before a layer, and the floats on which a wrong reading of one shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.ops.registry import STANDARD_OPSET, functions
from bnn_deploy.passes.onnx.activations.recognise_activations import recognise_activations
from bnn_deploy.passes.onnx.import_report import ImportReport, SignZero

F32 = np.float32


def standard(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node of standard ONNX called after its output."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, output.split(), name=f"module.{output.split()[0]}", **attributes)


def to_float(source: str, output: str) -> onnx.NodeProto:
    """Cast to float32."""
    return standard("Cast", source, output, to=TensorProto.FLOAT)


def before_layer(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, object] | None = None, channels: int = 1
) -> onnx.ModelProto:
    """``nodes`` compute ``a`` from ``x``, (1, n, channels); a MatMul reads ``a``. Both are outputs. Constants are float32."""
    arrays = {name: np.asarray(value, getattr(value, "dtype", F32)) for name, value in (constants or {}).items()}
    arrays["w"] = np.ones((channels, 1), F32)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", channels])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in ("a", "y")]
    graph = helper.make_graph(
        [*nodes, standard("MatMul", "a w", "y")],
        "network",
        values,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", STANDARD_OPSET)], ir_version=10)
    onnx.checker.check_model(network)
    return onnx.shape_inference.infer_shapes(network, strict_mode=True, data_prop=True)


def recognised(network: onnx.ModelProto, sign_zero: SignZero = "auto") -> tuple[onnx.ModelProto, ImportReport]:
    """The model after the rule, checked, with the functions that it needs, and the report."""
    model = ir.from_proto(network)
    report = ImportReport(recognise_activations(model, sign_zero))
    result = ir.to_proto(model)
    used = {node.op_type for node in result.graph.node if node.domain == "bnn_deploy"}
    result.functions.extend(function for function in functions() if function.name in used)
    onnx.checker.check_model(result)
    return result, report


def operators(network: onnx.ModelProto) -> list[str]:
    """The operators between ``x`` and the layer, those of ours with a ``!`` and Sign with its zero."""
    named = []
    for node in network.graph.node[:-1]:
        zero = "".join(str(attribute.i) for attribute in node.attribute if attribute.name == "zero")
        named.append(f"{node.op_type}!{zero}" if node.domain else node.op_type)
    return named


def run(network: onnx.ModelProto, x: np.ndarray, output: str = "a") -> np.ndarray:
    """The activation ``a``, or another output, under plain onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As written: an optimiser's own rewrites must not stand between the graph and the comparison.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run([output], {"x": x})[0]


def neighbours(values: Sequence[float] | np.ndarray, steps: int = 3) -> np.ndarray:
    """The values and the floats next to them, a few steps on each side."""
    found = [np.asarray(values, F32)]
    for direction in (-np.inf, np.inf):
        current = found[0]
        for _ in range(steps):
            current = np.nextafter(current, F32(direction))
            found.append(current)
    return np.unique(np.concatenate(found))


def adversarial(extra: Sequence[float] = (), channels: int = 1) -> np.ndarray:
    """float32 (1, n, channels): zeros, subnormals, all binades to 2**24, neighbours of what activations compare with, noise."""
    binades = F32(2) ** np.arange(-149, 25, dtype=F32)
    random = np.random.default_rng(0)
    noise = [random.normal(0, scale, 400).astype(F32) for scale in (1, 1e-4, 100)]
    special = neighbours([0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, *extra])
    found = np.concatenate([[0.0, -0.0], binades, 1.5 * binades[:-1], special, *noise, neighbours(binades[-40:-1], 1)])
    found = np.concatenate([found, -found]).astype(F32)
    found = found[np.abs(found) <= 2**24]
    return np.repeat(found[None, :, None], channels, axis=2)
