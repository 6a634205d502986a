"""Find out which PyTorch module each node of a foreign graph comes from, and name the nodes so.

Before::

    node_Conv_2544 (torch.onnx.export, dynamo=True: the path stands in the node's metadata)
    /feature.1/binary_3x3/Conv (dynamo=False: it is the node's name)
    a nameless Conv that reads 'f.3.weight' (Brevitas: it is the parameter's name)
After::

    feature.1.binary_3x3, feature.1.binary_3x3, f.3

Where: as soon as functions are inlined, since folding constants takes the parameters' names away.
Not handled: graphs of other origin, whose nodes keep their own names, or get the operator's.
"""

from __future__ import annotations

import onnx_ir as ir

from bnn_deploy.onnx_files.node_naming import LAYER_KEY, module_path, name_nodes
from bnn_deploy.onnx_files.standard_operators import LAYERS
from bnn_deploy.passes.onnx.graph import ancestors, is_standard

_PARAMETERS = ("weight", "weights", "bias", "running_mean", "running_var")


def name_modules(graph: ir.Graph) -> None:
    """Write the module path into each node's metadata and name all nodes; changed in place."""
    for node in graph:
        path = _path(node)
        if path is not None:
            node.metadata_props[LAYER_KEY] = path
    rename_nodes(graph)


def rename_nodes(graph: ir.Graph) -> None:
    """Name the nodes once more after rules have replaced some: binary layers and signs then bear their module's path."""
    paths = {node.metadata_props[LAYER_KEY] for node in graph if LAYER_KEY in node.metadata_props} | {""}
    inner = {path.rpartition(".")[0] for path in paths}
    name_nodes(graph, {path: bool(path) and path not in inner for path in paths})


def _path(node: ir.Node) -> str | None:
    # Exporters fold a BatchNormalization into the layer before it and call the result by either; its weights know better.
    path = _parameter_path(node) if is_standard(node, *LAYERS) else None
    if path is None:
        path = module_path(node)
    if path is None and node.name and node.name.startswith("/"):
        path = _script_path(node.name)
    if path is None:
        path = _parameter_path(node)
    if path is None and node.name:
        path = node.name
    return path


def _script_path(name: str) -> str:
    """ "/net/net.0/conv/Conv" -> "net.0.conv": a container and its item are two steps that repeat the container."""
    steps: list[str] = []
    for step in name.split("/")[1:-1]:
        if steps and step.startswith(f"{steps[-1]}."):
            steps.pop()
        steps.append(step)
    return ".".join(steps)


def _parameter_path(node: ir.Node) -> str | None:
    """The module whose parameters ``node`` reads, directly or through operators that read nothing else."""
    # Of a layer, its weights alone: exporters let equal vectors be one, so that a bias may bear another module's name.
    for operand in node.inputs[:2] if is_standard(node, *LAYERS) else node.inputs[1:]:
        behind = [] if operand is None else list(ancestors(operand))
        if any(value.is_graph_input() and not value.is_initializer() for value in behind):
            continue
        for value in behind:
            module, _, parameter = str(value.name).rpartition(".")
            if value.is_initializer() and module and parameter in _PARAMETERS:
                return module
    return None
