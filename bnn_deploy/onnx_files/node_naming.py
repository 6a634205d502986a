"""Names of nodes: the PyTorch module path of each, made unique. The same for exported and for imported graphs."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import LAYERS
from bnn_deploy.ops.registry import DOMAIN, is_binary_layer

# Key of the node metadata that carries the module path through exporter and rules; removed from the written file.
LAYER_KEY = "bnn_deploy.layer"
# Written by torch.onnx.export: the list of module paths from the root to the operation, then the operation's own name.
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"
_MAIN_OPERATORS = {
    *LAYERS,
    *("PRelu", "BatchNormalization"),
    *("GroupNormalization", "InstanceNormalization", "LayerNormalization"),
}


def name_nodes(graph: ir.Graph, modules: Mapping[str, bool]) -> None:
    """Name every node after the module it comes from.

    The main operation of a leaf module (its only node, or its first Conv, BatchNormalization, binary layer ...) gets
    the module path itself, e.g. ``feature.1.binary_3x3``; everything else gets path, slash and operator, e.g.
    ``feature.1/Add``, numbered from the second on (``feature.1/Add_2``).

    Args:
        graph: changed in place.
        modules: module path -> whether it is a leaf (has no children).
    """
    nodes = list(graph)
    paths = [_module_path(node, modules) for node in nodes]
    population = Counter(paths)
    taken: set[str] = set()
    # A layer has the first claim to a path, whatever stands before it: reports are read by layer.
    for node, path in sorted(zip(nodes, paths, strict=True), key=lambda entry: not _is_layer(entry[0])):
        main = population[path] == 1 or node.op_type in _MAIN_OPERATORS or node.domain == DOMAIN
        name = path if path and modules[path] and main else ""
        if not name or name in taken:
            name = f"{path}/{node.op_type}" if path else node.op_type
        node.name = _unique(name, taken)


def name_values(graph: ir.Graph) -> None:
    """Number vectors, other constants and the values between nodes (``c7``, ``v31``): the node's name tells what they are,
    and a second and third name as long as a module path would be 4% of BiMLP's file.

    Weight matrices and kernels keep their names (``feature.1.binary_3x3.packed``), inputs and outputs of the graph too.
    """
    nodes = list(graph)
    outputs = [value for node in nodes for value in node.outputs if not value.is_graph_output()]
    constants = [value for value in graph.initializers.values() if not _is_matrix(value)]
    # Out of the way first: a value that is renamed later may still carry the name that another one gets now.
    for number, value in enumerate((*outputs, *constants)):
        value.name = f"bnn_deploy/temporary/{number}"
    taken = {str(value.name) for value in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    for kind, values in (("c", constants), ("v", outputs)):
        for number, value in enumerate(values):
            value.name = _unique(f"{kind}{number}", taken)


def _is_layer(node: ir.Node) -> bool:
    return is_binary_layer(node) or (node.domain != DOMAIN and node.op_type in LAYERS)


def _is_matrix(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.size > max((*tensor.shape.numpy(), 1))


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _module_path(node: ir.Node, modules: Mapping[str, bool]) -> str:
    """The node's module, else that of its first reader: the exporter's clean-up may write nodes without a scope."""
    readers = [reader for output in node.outputs for reader, _ in output.uses()]
    paths = (module_path(candidate) for candidate in (node, *readers))
    # The exporter may also invent a module: such nodes belong to the root, whose path is empty.
    return next((path for path in paths if path is not None and path in modules), "")


def module_path(node: ir.Node) -> str | None:
    """The path of the PyTorch module that ``node`` was made for, as far as the node itself tells; the root is ""."""
    if LAYER_KEY in node.metadata_props:
        return node.metadata_props[LAYER_KEY]
    return None if _SCOPES_KEY not in node.metadata_props else _innermost(node.metadata_props[_SCOPES_KEY])


def _innermost(scopes: str) -> str | None:
    """The last module of torch's list; None where the file holds something else there."""
    try:
        paths = ast.literal_eval(scopes)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        return None
    return str(["", *paths][-2])
