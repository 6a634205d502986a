"""What must hold of a model's binary layers before it is compiled: there are some, and each reads binary values."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT, STANDARD_DOMAINS
from bnn_deploy.ops.operator import describe
from bnn_deploy.ops.registry import DOMAIN, is_activation, is_binary_layer


def require_binary(model: ModelProto, source: str | Path = "the model") -> None:
    """Check that there is something binary to compile, and that every binary layer reads binary values.

    Args:
        model: result of ``onnx_files.reading.load_onnx``.
        source: file name for the messages.

    Raises:
        ModelFileError: no binary layer; a layer whose weights are not constants; or a layer whose X does not come from
            Sign or Ternary through data movement only. Names the node.
    """
    layers = [node for node in model.graph.node if is_binary_layer(node)]
    if not layers:
        real = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph.node)
        raise ModelFileError(
            f"No binary layers found in {source}: found {real} real-valued Conv/Gemm/MatMul layers and no node of the "
            f"domain {DOMAIN!r}; build the model from bnn_deploy.models.layers and write it with `bnn-deploy export`."
        )
    constants = {tensor.name for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output if output}
    for layer in layers:
        if layer.input[1] not in constants:
            raise ModelFileError(f"{describe(layer)}: its weights W must be an initializer, found {layer.input[1]!r}.")
        _check_source(layer, producers)


def _check_source(layer: NodeProto, producers: dict[str, NodeProto]) -> None:
    pending, seen = [layer.input[0]], set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = producers.get(value)
        if node is None:
            raise ModelFileError(
                f"{describe(layer)} reads the real-valued tensor {value!r}; put Sign or Ternary before the layer."
            )
        if is_activation(node):
            continue
        if node.domain not in STANDARD_DOMAINS or node.op_type not in DATA_MOVEMENT:
            raise ModelFileError(
                f"{describe(layer)} reads the output of {describe(node)}, which need not be -1, 0 or +1; only data "
                "movement (such as Slice, Concat, Reshape) may stand between a Sign or Ternary node and a binary layer."
            )
        pending.extend(node.input if node.op_type == "Concat" else node.input[:1])
