"""Small graphs with signs and layers for the tests of the rules about layers; run before and after by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from bnn_deploy.onnx_files.binary_layers import require_binary
from bnn_deploy.ops.registry import DOMAIN, OPSET, STANDARD_OPSET, functions
from bnn_deploy.passes.onnx.import_report import LayerReport
from tests.passes.onnx_models import node

Rule = Callable[[ir.Graph], list[LayerReport] | None]

ZERO = {"zero": np.zeros((), "float32")}


def network(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Mapping[str, np.ndarray],
    output: str = "y",
    extra_inputs: Mapping[str, Sequence[int]] | None = None,
) -> onnx.ModelProto:
    """A checked model with inferred shapes; float32 input ``x`` (and ``extra_inputs``), the shape of the output inferred."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, extents)
        for name, extents in {"x": shape, **(extra_inputs or {})}.items()
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "network", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid(DOMAIN, OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions(), ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model


def apply(model: onnx.ModelProto, *rules: Rule) -> tuple[onnx.ModelProto, list[LayerReport]]:
    """The model after the rules, without dead nodes and checked; what they reported of layers."""
    graph_model = ir.from_proto(model)
    reports = [report for rule in rules for report in rule(graph_model.graph) or ()]
    common.RemoveUnusedNodesPass()(graph_model)
    values = [value for n in graph_model.graph for value in n.outputs]
    names = [value.name for value in (*values, *graph_model.graph.initializers.values(), *graph_model.graph.inputs)]
    assert len(names) == len(set(names)), "two values have one name"
    common.NameFixPass()(graph_model)
    result = ir.to_proto(graph_model)
    onnx.checker.check_model(result)
    if any(n.domain == DOMAIN and n.op_type not in ("Sign", "Ternary") for n in result.graph.node):
        require_binary(result)
    return result, reports


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    """The output under plain onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def types(model: onnx.ModelProto) -> list[str]:
    """Operator types in the order of the graph."""
    return [n.op_type for n in model.graph.node]


def attributes(model: onnx.ModelProto, operator: str) -> dict:
    """The attributes of the first node of this type."""
    found = next(n for n in model.graph.node if n.op_type == operator)
    return {a.name: helper.get_attribute_value(a) for a in found.attribute}


def numbers(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """float32 on a grid of eighths around 0, zeros among them."""
    return (np.random.default_rng(seed).integers(-8, 9, shape) / 8).astype("float32")


def signs(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Random ±1, float32."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], "float32"), tuple(shape))


def sign_node(source: str = "x", output: str = "s", threshold: str = "zero", **kwargs: int) -> onnx.NodeProto:
    """``Sign`` of the domain ``bnn_deploy``."""
    return node("Sign", f"{source} {threshold}", output, **kwargs)


HALF = {"half": np.array(0.5, "float32")}
ZERO_ONE = [sign_node(), node("Mul", "s half", "m"), node("Add", "m half", "u")]


def convolution(
    weights: np.ndarray,
    shape: tuple[int, ...],
    activation: list[onnx.NodeProto] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    bias: np.ndarray | None = None,
    **attribute: object,
) -> onnx.ModelProto:
    """x, signs (or what ``activation`` makes), Conv 'layer'."""
    nodes = [*(activation or [sign_node()])]
    last = nodes[-1].output[0]
    values = ZERO | {"layer.weight": weights} | (constants or {}) | ({} if bias is None else {"b": bias})
    inputs = f"{last} layer.weight" + " b" * (bias is not None)
    return network([*nodes, node("Conv", inputs, "y", "layer", **attribute)], shape, values)


def only(reports: list[LayerReport]) -> LayerReport:
    """The one report."""
    assert len(reports) == 1
    return reports[0]


def tolerance(terms: int, largest: float) -> float:
    """How far two float32 sums of ``terms`` products of at most ``largest`` may differ.

    Either is off by at most (terms + 1) * 2**-24 of the sum of magnitudes: one rounding for each addition and each product. The
    other way round, scale * integer + bias, rounds scale, product and sum: 3 * 2**-24 of the same. Together below twice the
    first for two terms or more.
    """
    return 2 * (terms + 4) * 2.0**-24 * terms * largest
