"""The binary layers of an ONNX file as the specifications that kernels are selected by."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto

from bnn_deploy.frontend.open_model import open_model
from bnn_deploy.onnx_files.statistics import model_statistics
from bnn_deploy.ops.registry import DOMAIN, OPERATORS, is_binary_layer
from bnn_deploy.targets.kernels.specification import ConvolutionSpecification


def binary_layers(path: Path, batch: int) -> dict[ConvolutionSpecification, list[str]]:
    """Names of the layers by what they compute, in the order of the file.

    Raises:
        ModelFileError: the file cannot be used.
    """
    model = open_model(path).model
    rows = {row.name: row for row in model_statistics(model, 0).layers}
    layers: dict[ConvolutionSpecification, list[str]] = {}
    for node in model.graph.node:
        if is_binary_layer(node):
            row = rows[node.name]
            specification = _specification(node, row.input_shape, row.output_shape, batch, _reads_ternary(model, node))
            layers.setdefault(specification, []).append(node.name)
    return layers


def _specification(
    node: NodeProto, input_shape: tuple[int, ...], output_shape: tuple[int, ...], batch: int, ternary: bool
) -> ConvolutionSpecification:
    attributes = OPERATORS[node.op_type].attributes_of(node)
    if node.op_type == "BinaryLinear":
        rows = batch
        for extent in input_shape[1:-1]:
            rows *= extent
        return ConvolutionSpecification(rows, 1, 1, attributes["in_features"], output_shape[-1], ternary=ternary)
    return ConvolutionSpecification(
        batch=batch,
        height=input_shape[2],
        width=input_shape[3],
        in_channels=attributes["in_channels"],
        out_channels=output_shape[1],
        kernel_shape=tuple(attributes["kernel_shape"]),
        strides=tuple(attributes["strides"]),
        pads=tuple(attributes["pads"]),
        group=attributes["group"],
        ternary=ternary,
        tap_scaled=node.op_type == "TapScaledBinaryConv",
    )


def _reads_ternary(model: ModelProto, layer: NodeProto) -> bool:
    """Whether a layer's input has three values; only data movement stands between it and a Sign or Ternary."""
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers[layer.input[0]]
    while node.domain != DOMAIN:
        node = producers[node.input[0]]
    return node.op_type == "Ternary" or OPERATORS[node.op_type].attributes_of(node).get("zero") == 0
