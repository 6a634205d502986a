"""The front end for foreign graphs, as one list to read: standard ONNX in, binary layers as ``bnn_deploy`` nodes out.

Each rule is a file of its own, with a before/after example, and says of everything it leaves alone why.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.node_naming import name_values
from bnn_deploy.onnx_files.standard_operators import STANDARD_DOMAINS
from bnn_deploy.passes.onnx.activations.recognise_activations import recognise_activations
from bnn_deploy.passes.onnx.graph import layer_name
from bnn_deploy.passes.onnx.import_report import ImportOptions, ImportReport
from bnn_deploy.passes.onnx.layers.fold_padding import fold_padding
from bnn_deploy.passes.onnx.layers.hoist_pooling import hoist_pooling
from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from bnn_deploy.passes.onnx.plain_form.name_modules import rename_nodes
from bnn_deploy.passes.onnx.plain_form.normalise_graph import normalise_graph


def canonicalise(model: onnx.ModelProto, options: ImportOptions) -> tuple[onnx.ModelProto, ImportReport]:
    """Recognise the binary layers of a graph of standard operators.

    Args:
        model: standard operators only; left as it is.
        options: what to do where the graph leaves a choice.

    Returns:
        The same network with ``bnn_deploy`` nodes where a layer is binary (functions and metadata are the caller's to add),
        and what was found, under the names that the nodes have in it.

    Raises:
        ModelFileError: the graph contradicts itself, has operators that are no standard ONNX, or leaves a choice that
            ``options`` does not make.
    """
    report = ImportReport()

    # One plain form, whichever exporter wrote the file.
    graph_model = normalise_graph(model)
    _require_standard(graph_model.graph)

    # What is binarised: elementwise subgraphs that are proved to be signs become Sign and Ternary nodes.
    report.activations = recognise_activations(graph_model, options.sign_zero)

    # Nothing but data movement may stand between a sign and the layer that reads it.
    hoist_pooling(graph_model.graph)
    fold_padding(graph_model.graph)
    hoist_pooling(graph_model.graph)  # what was behind a padding

    # Which layers multiply signs with ±a: they become BinaryConv and BinaryLinear nodes with packed weights.
    report.layers = recognise_layers(graph_model.graph, options.zero_weights)

    # What is left over goes, and nodes are called after the modules that they come from.
    common.RemoveUnusedNodesPass()(graph_model)
    _rename(graph_model.graph, report)
    common.TopologicalSortPass()(graph_model)
    return ir.to_proto(graph_model), report


def _require_standard(graph: ir.Graph) -> None:
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.domain not in STANDARD_DOMAINS:
            raise ModelFileError(
                f"Node '{layer_name(node)}' is a {node.op_type} of the domain '{node.domain}', which is no standard ONNX and not "
                "known here; export the model without operators of one runtime only."
            )


def _rename(graph: ir.Graph, report: ImportReport) -> None:
    """Name what the rules made, and let the report speak of the nodes by their final names."""
    nodes = [(str(node.name), node) for node in graph]
    rename_nodes(graph)
    name_values(graph)
    final = {before: str(node.name) for before, node in nodes}
    report.layers = [replace(row, name=final.get(row.name, row.name)) for row in report.layers]
    report.activations = [replace(row, name=final.get(row.name, row.name)) for row in report.activations]
