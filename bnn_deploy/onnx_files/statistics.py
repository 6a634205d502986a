"""Operations and parameters of an ONNX model, counted as the papers count them (BiMLP, BCDNet, ReActNet).

One multiply-accumulate of a convolution or fully connected layer is one operation, padded positions included. BOPs are
those of binary layers, FLOPs those of real-valued ones, OPs = BOPs / 64 + FLOPs; all for one image. Normalisation,
activations, shortcuts, pooling and softmax count nothing. Nor do biases, except in files whose metadata say
``bnn_deploy.counts_biases`` (BiMLP): there one FLOP for each output of a layer with a bias. Two fully connected layers
that read one tensor and are only added (BCDNet's heads) can be merged into one, and count as one.

Binary parameters are the weights of binary layers, one bit each. Real parameters are all other trained numbers, without
BatchNormalization's running mean and variance and without the scales computed from the real weights behind binary ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, shape_inference

from bnn_deploy.errors import ModelFileError, message_lines
from bnn_deploy.metadata import entries
from bnn_deploy.onnx_files.standard_operators import STANDARD_DOMAINS
from bnn_deploy.ops.operator import Attributes, Operator, describe
from bnn_deploy.ops.registry import DOMAIN, is_binary_layer, operator_of

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerStatistics:
    """One convolution or fully connected layer, for one image; shapes have batch 1 where the file's batch is dynamic.

    ``flops`` is 0 for a head that merges into another one. ``real_params`` counts the layer's own weight and bias.
    """

    name: str
    op: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    bops: int
    flops: int
    binary_params: int
    real_params: int


@dataclass(frozen=True)
class ModelStatistics:
    """Counts for one image; the module's docstring states the convention. ``layers`` is in order of execution."""

    bops: int
    flops: int
    ops: float
    binary_params: int
    real_params: int
    file_bytes: int
    layers: tuple[LayerStatistics, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def model_statistics(model: ModelProto, file_bytes: int) -> ModelStatistics:
    """Count one image's operations, and the parameters.

    Args:
        model: a checked model (``onnx_files.reading.load_onnx``).
        file_bytes: size of the file it came from.

    Raises:
        ModelFileError: a counted layer's shape cannot be inferred, or its operands disagree; names the node.
    """
    graph = model.graph
    shapes = _infer_shapes(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    counts_biases = any(item.key == entries.COUNTS_BIASES and item.value == "true" for item in model.metadata_props)
    merged = _merged_heads(model, constants)
    layers = []
    for node in graph.node:
        operator = operator_of(node)
        if operator is not None and operator.weight_bits is not None:
            layers.append(_binary_row(node, operator, operator.weight_bits, shapes))
        elif node.domain in STANDARD_DOMAINS and node.op_type in ("Conv", "Gemm", "MatMul"):
            layers.append(_float_row(node, shapes, constants, counts_biases, merged))
    # The file's batch, where it is fixed: every counted layer's operations are proportional to it.
    batch = _batch(model)
    layers = [dataclasses.replace(row, bops=row.bops // batch, flops=row.flops // batch) for row in layers]
    bops, flops = sum(row.bops for row in layers), sum(row.flops for row in layers)
    return ModelStatistics(
        bops=bops,
        flops=flops,
        ops=bops / 64 + flops,
        binary_params=sum(row.binary_params for row in layers),
        real_params=_real_parameters(model, constants),
        file_bytes=file_bytes,
        layers=tuple(layers),
    )


def _binary_row(
    node: NodeProto, operator: Operator, weight_bits: Callable[[Attributes], int], shapes: Mapping[str, Shape]
) -> LayerStatistics:
    attributes = operator.attributes_of(node)
    inputs = [_shape(node, name, shapes) for name in node.input]
    try:
        output = operator.infer_shape(inputs, attributes)
    except ModelFileError as error:
        raise ModelFileError(f"{describe(node)}: {error}") from error
    outputs, channel_axis = inputs[1][0], -1 if node.op_type == "BinaryLinear" else 1
    weights = outputs * weight_bits(attributes)
    positions = math.prod(output) // output[channel_axis]
    return LayerStatistics(
        name=node.name,
        op=node.op_type,
        kind="binary",
        input_shape=inputs[0],
        output_shape=output,
        bops=weights * positions,
        flops=0,
        binary_params=weights,
        real_params=0,
    )


def _float_row(
    node: NodeProto,
    shapes: Mapping[str, Shape],
    constants: Mapping[str, TensorProto],
    counts_biases: bool,
    merged: set[str],
) -> LayerStatistics:
    values, weights, output = (_shape(node, name, shapes) for name in (node.input[0], node.input[1], node.output[0]))
    bias = len(node.input) > 2 and bool(node.input[2])
    if node.op_type == "Conv":
        products = math.prod(weights[1:])
    else:
        transposed = node.op_type == "Gemm" and any(item.name == "transA" and item.i for item in node.attribute)
        products = values[0] if transposed else values[-1]
    flops = math.prod(output) * (products + int(bias and counts_biases))
    return LayerStatistics(
        name=node.name,
        op=node.op_type,
        kind="float",
        input_shape=values,
        output_shape=output,
        bops=0,
        flops=0 if node.output[0] in merged else flops,
        binary_params=0,
        real_params=sum(math.prod(constants[name].dims) for name in node.input[1:] if name in constants),
    )


def _merged_heads(model: ModelProto, constants: Mapping[str, TensorProto]) -> set[str]:
    """Outputs of fully connected layers that count as part of another one: same input, and only added to its output."""
    producers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, int] = {output.name: 1 for output in model.graph.output}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    merged = set()
    for node in model.graph.node:
        if node.op_type != "Add" or node.domain not in STANDARD_DOMAINS:
            continue
        first, second = (producers.get(name) for name in node.input)
        if first is None or second is None or first is second:
            continue
        if not first.op_type == second.op_type == "Gemm" or first.input[0] != second.input[0]:
            continue
        constant_weights = first.input[1] in constants and second.input[1] in constants
        if constant_weights and readers[node.input[0]] == readers[node.input[1]] == 1:
            merged.add(second.output[0])
    return merged


def _real_parameters(model: ModelProto, constants: Mapping[str, TensorProto]) -> int:
    """Elements of float initializers, without running statistics, weight scales and scalars (constants of the code)."""
    binary_outputs = {node.output[0] for node in model.graph.node if is_binary_layer(node)}
    derived = set()
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            derived.update(node.input[3:5])
        elif node.op_type == "TapScaledBinaryConv" and node.domain == DOMAIN:
            derived.add(node.input[2])
        elif node.op_type == "Mul" and binary_outputs.intersection(node.input):
            derived.update(node.input)
    return sum(
        math.prod(tensor.dims)
        for name, tensor in constants.items()
        if tensor.data_type in _FLOATS and tensor.dims and name not in derived
    )


def _infer_shapes(model: ModelProto) -> dict[str, Shape]:
    """Static shapes of every value that has one, with batch 1 where the first dimension of the inputs is dynamic."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].HasField("dim_value"):
            dimensions[0].dim_value = 1
    # Written for the dynamic batch, or by somebody else: inferred anew.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in fixed.graph.node:
        if node.op_type == "GroupNormalization" and node.domain in STANDARD_DOMAINS:
            # onnx has no shape rule for it; only that Y has the shape of X matters here.
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
    try:
        graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
        raise ModelFileError(f"The shapes of the model do not fit together: {message_lines(error)[0]}") from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dimensions):
            shapes[value.name] = tuple(dim.dim_value for dim in dimensions)
    return shapes


def _batch(model: ModelProto) -> int:
    sizes = [
        value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input if value.type.tensor_type.shape.dim
    ]
    return max(1, int(sizes[0])) if sizes else 1


def _shape(node: NodeProto, name: str, shapes: Mapping[str, Shape]) -> Shape:
    if name not in shapes:
        raise ModelFileError(
            f"{describe(node)}: the shape of {name!r} cannot be inferred; export the model with a fixed input size."
        )
    return shapes[name]
