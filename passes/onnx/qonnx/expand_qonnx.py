"""Replace the operators of QONNX and FINN by standard ones: what every runtime runs and every later rule reads.

Before::

    y = Gemm(qonnx.custom_op.general::BipolarQuant(x, scale), qonnx.custom_op.general::BipolarQuant(w, scale))
After::

    y = Gemm(Mul(Where(GreaterOrEqual(x, 0), 1, -1), scale), Mul(Where(GreaterOrEqual(w, 0), 1, -1), scale))

The meaning is exactly that of QONNX's own implementation in numpy. The files of this package hold one operator each.
Where: before everything else, on the file as it was loaded; the result is what parity is measured against.
Not handled, and refused by name: every other operator of those domains, among them Trunc and FloatQuant (no layer of bits
reads them) and FINN's Im2Col, MaxPoolNHWC and hardware layers (export before FINN's transformations).
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import GraphProto, ModelProto, NodeProto, helper, inliner, shape_inference, version_converter

from bnn_deploy.errors import ModelFileError, message_lines
from bnn_deploy.onnx_files.qonnx_domains import declare_qonnx_domains, is_qonnx
from bnn_deploy.onnx_files.standard_operators import STANDARD_DOMAINS
from bnn_deploy.onnx_files.walk import nodes_within, subgraphs
from bnn_deploy.ops.operator import DOMAIN, describe
from bnn_deploy.passes.onnx.qonnx.bipolar_quant import expand_bipolar_quant
from bnn_deploy.passes.onnx.qonnx.multi_threshold import expand_multi_threshold
from bnn_deploy.passes.onnx.qonnx.quant import expand_quant
from bnn_deploy.passes.onnx.qonnx.replacement import Replacement, Scope
from bnn_deploy.passes.onnx.qonnx.xnor_popcount_mat_mul import expand_xnor_popcount_mat_mul

EXPANSIONS: dict[str, Callable[[Replacement], str]] = {
    "BipolarQuant": expand_bipolar_quant,
    "IntQuant": expand_quant,
    "MultiThreshold": expand_multi_threshold,
    "Quant": expand_quant,
    "XnorPopcountMatMul": expand_xnor_popcount_mat_mul,
}
# The first version that has every operator written here in its present form (axes as inputs came last), and the IR
# version of its time.
OLDEST_OPSET, OLDEST_IR_VERSION = 13, 7


def expand_qonnx(model: ModelProto) -> ModelProto:
    """The same network in standard operators only.

    Args:
        model: result of ``load_onnx``; left as it is.

    Returns:
        ``model`` itself if it has no QONNX node; else a new model without any, of operator set 13 or later.

    Raises:
        ModelFileError: an operator of QONNX that has no expansion, or one whose inputs or attributes are not as QONNX
            says; names the node.
    """
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    found = [node for body in bodies for node in nodes_within(body) if is_qonnx(node.domain)]
    if not found:
        return model
    for node in found:
        _require_known(node)
    expanded = _at_least(_without_functions(model), OLDEST_OPSET)
    shapes = _with_shapes(expanded)
    _expand_graph(expanded.graph, shapes.graph, Scope(taken=_names(expanded)))
    kept = [entry for entry in expanded.opset_import if not is_qonnx(entry.domain)]
    del expanded.opset_import[:]
    expanded.opset_import.extend(kept)
    _drop_unread(expanded.graph, {name for node in found for name in node.input})
    # FINN's notes on bit widths, about values some of which are gone.
    del expanded.graph.quantization_annotation[:]
    return expanded


def _require_known(node: NodeProto) -> None:
    if node.op_type in EXPANSIONS and not node.domain.startswith("qonnx.custom_op.channels_last"):
        return
    known = ", ".join(sorted(EXPANSIONS))
    raise ModelFileError(
        f"{describe(node)} of the domain {node.domain!r} is not supported, only {known} are; export the model without it "
        "(before FINN's transformations)."
    )


def _without_functions(model: ModelProto) -> ModelProto:
    """A copy in which calls of functions that hold QONNX nodes, or call such, are written out."""
    copy = ModelProto()
    copy.CopyFrom(model)
    if not any(is_qonnx(node.domain) for function in model.functions for node in nodes_within(function.node)):
        return copy
    declare_qonnx_domains(copy)
    keep = [(function.domain, function.name) for function in model.functions if function.domain == DOMAIN]
    return inliner.inline_selected_functions(copy, keep, exclude=True)


def _at_least(model: ModelProto, version: int) -> ModelProto:
    """``model`` with its standard operators converted up to ``version`` if they are older."""
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if versions and min(versions) >= version:
        return model
    try:
        # A graph of QONNX nodes alone need not say which standard operators it would use.
        if not versions:
            model.opset_import.append(helper.make_opsetid("", version))
        else:
            declare_qonnx_domains(model)
            model = version_converter.convert_version(model, version)
    except Exception as error:
        raise ModelFileError(
            f"onnx cannot convert the operators of version {min(versions)} to version {version}: "
            f"{message_lines(error)[0].rstrip('.')}; export the model with opset_version={version} or later."
        ) from error
    model.ir_version = max(model.ir_version, OLDEST_IR_VERSION)
    return model


def _with_shapes(model: ModelProto) -> ModelProto:
    """A copy with inferred shapes, whose QONNX nodes are stand-ins of the same shape and type; nodes as in ``model``."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in nodes_within(copy.graph.node):
        if is_qonnx(node.domain):
            is_product = node.op_type == "XnorPopcountMatMul"
            node.op_type, node.domain = ("MatMul" if is_product else "Identity"), ""
            del node.attribute[:]
            del node.input[2 if is_product else 1 :]
    try:
        return shape_inference.infer_shapes(copy)
    except Exception as error:
        raise ModelFileError(
            f"onnx cannot infer the shapes of the model: {message_lines(error)[0].rstrip('.')}; export it again."
        ) from error


def _expand_graph(graph: GraphProto, shapes: GraphProto, outer: Scope) -> None:
    scope = outer.inside(shapes)
    nodes = []
    for node, twin in zip(graph.node, shapes.node, strict=True):
        for inner, inner_shapes in zip(subgraphs(node), subgraphs(twin), strict=True):
            _expand_graph(inner, inner_shapes, scope)
        if not is_qonnx(node.domain):
            nodes.append(node)
            continue
        replacement = Replacement(node, scope)
        replacement.finish(EXPANSIONS[node.op_type](replacement))
        nodes.extend(replacement.nodes)
        graph.initializer.extend(replacement.initializers)
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unread(graph: GraphProto, candidates: set[str]) -> None:
    """Remove those of the initializers ``candidates`` (scales, bit widths) that no node reads any more."""
    read = {name for node in nodes_within(graph.node) for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read or tensor.name not in candidates]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _names(model: ModelProto) -> set[str]:
    """Names of all values and nodes: new ones must differ from them in subgraphs too."""
    graphs = [model.graph, *(graph for node in nodes_within(model.graph.node) for graph in subgraphs(node))]
    return {
        *(value.name for graph in graphs for value in (*graph.input, *graph.initializer)),
        *(name for graph in graphs for node in graph.node for name in (node.name, *node.input, *node.output)),
    }
