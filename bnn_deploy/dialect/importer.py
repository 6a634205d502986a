"""ONNX -> Relax: TVM's own ONNX front end for standard operators, ours for the ``bnn_deploy`` domain, layer names kept.

The module attribute ``layer_names`` maps the variable that holds each node's result to the node's name, which is the PyTorch
module path in files written by ``bnn-deploy export``; ``tensors`` maps it to the ONNX value (``dialect.values``).
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, _get_convert_map

from bnn_deploy.dialect.conversions import CONVERSIONS
from bnn_deploy.dialect.operators import ConvolutionAttributes, call
from bnn_deploy.dialect.values import Value, with_values
from bnn_deploy.errors import CompileError, ModelFileError, message_lines
from bnn_deploy.onnx_files.standard_operators import standard_opset
from bnn_deploy.ops.registry import DOMAIN, OPERATORS

_PREFIX = f"{DOMAIN}."


def import_onnx(model: onnx.ModelProto) -> tvm.IRModule:
    """Build a Relax module with binary operators from an ONNX model.

    Args:
        model: of ``onnx_files.reading.load_onnx``, with a static batch; standard operators and the ``bnn_deploy`` domain.

    Returns:
        Module with one dataflow function ``main``, static shapes, constants embedded, and attribute ``layer_names``.

    Raises:
        ModelFileError: an operator is not supported, a dimension is dynamic, or there is not exactly one input and one
            output; names the node.
    """
    inputs, outputs = model.graph.input, model.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelFileError(
            f"The model has {len(inputs)} inputs and {len(outputs)} outputs, but the compiler takes exactly one "
            "of each; export only the part from the image to the logits."
        )
    shapes = {value.name: _static_shape(value) for value in inputs}
    importer = _Importer(shapes, "float32")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the front end warns about every renamed identifier
        try:
            module = importer.from_onnx(_qualified(model.graph), standard_opset(model))
        except Exception:
            # TVM's builder writes a warning of its own to stderr when it is thrown away with an open block.
            with contextlib.suppress(Exception):
                importer.bb._end_block()
            raise
    module = module.with_attr("layer_names", importer.layer_names)
    return with_values(module, {v: Value(name) for v, name in importer.onnx_values().items()})


def _qualified(graph: onnx.GraphProto) -> onnx.GraphProto:
    """A copy in which our operators carry their domain: TVM goes by the type alone, and standard ONNX has a Sign of its own."""
    qualified = onnx.GraphProto()
    qualified.CopyFrom(graph)
    for node in qualified.node:
        if node.domain == DOMAIN:
            node.op_type = f"{_PREFIX}{node.op_type}"
    return qualified


def _static_shape(value: onnx.ValueInfoProto) -> list[int]:
    dimensions = value.type.tensor_type.shape.dim
    shape = [d.dim_value for d in dimensions]
    if not shape or any(extent <= 0 for extent in shape):
        found = [d.dim_param or d.dim_value for d in dimensions]
        raise ModelFileError(
            f"Input '{value.name}' has shape {found}: every dimension but the first must be a fixed positive number; "
            "export the model with a fixed input size."
        )
    return shape


class _Importer(ONNXGraphImporter):  # type: ignore[misc] # tvm has no types
    """TVM's importer, which keys on the operator type alone and has no hook for new domains, hence the two overrides."""

    def __init__(self, shapes: dict[str, list[int]], dtype: str) -> None:
        super().__init__(shapes, dtype)
        self.layer_names: dict[str, str] = {}

    def onnx_values(self) -> dict[relax.Var, str]:
        """The ONNX value in each variable; of several that are the same (Identity), the first."""
        inputs = set(self._inputs.values())
        named: dict[relax.Var, str] = {}
        for name, expression in self._nodes.items():
            tensor = isinstance(expression, relax.Var) and isinstance(expression.ty, relax.TensorType)
            if tensor and expression not in inputs:
                named.setdefault(expression, name)
        return named

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        known = _get_convert_map()
        for node in graph.node:
            name = node.op_type.removeprefix(_PREFIX)
            supported = (
                name in OPERATORS
                if node.domain == DOMAIN
                else name in known or name in CONVERSIONS or name == "Constant"
            )
            if not supported:
                raise ModelFileError(
                    f"Node '{node.name or node.output[0]}' has operator '{node.domain or 'ai.onnx'}.{name}', which the compiler "
                    "does not support; replace it in the model, or open an issue with the ONNX file."
                )

    def _convert_operator(
        self, op_name: str, inputs: list[relax.Expr], attrs: dict[str, Any], opset: int
    ) -> relax.Expr:
        layer = attrs["tvm_custom"]["name"] or op_name
        try:
            if op_name.startswith(_PREFIX):
                result = self.bb.normalize(_binary_operator(op_name.removeprefix(_PREFIX), inputs, attrs))
            else:
                own = CONVERSIONS[op_name](self.bb, inputs, attrs) if op_name in CONVERSIONS else None
                result = super()._convert_operator(op_name, inputs, attrs, opset) if own is None else own
        except Exception as error:
            # TVM's errors end with what went wrong.
            reason = message_lines(error)[-1]
            raise CompileError(
                f"Node '{layer}' (operator {op_name.removeprefix(_PREFIX)}) could not be imported: {reason}"
            ) from error
        if isinstance(result, relax.Tuple):
            return relax.Tuple([self._named(field, layer) for field in result.fields])
        return self._named(result, layer)

    def _named(self, result: relax.Expr, layer: str) -> relax.Expr:
        if isinstance(result, relax.Call) and isinstance(result.ty, relax.TensorType):
            result = self.bb.emit(result, name_hint=re.sub(r"\W", "_", layer))
        if isinstance(result, relax.Var) and result.name not in self._inputs:
            self.layer_names.setdefault(result.name, layer)
        return result


def _binary_operator(name: str, inputs: list[relax.Expr], attrs: dict[str, Any]) -> relax.Expr:
    if name == "Sign":
        return call("bnn.sign", list(inputs[:2]), {"zero": int(attrs.get("zero", -1))})
    if name == "Ternary":
        return call("bnn.ternary", [inputs[0]])
    if name not in ("BinaryLinear", "BinaryConv", "TapScaledBinaryConv"):
        raise NotImplementedError(f"the importer has no branch for it, see _binary_operator in {__name__}.")
    x, weight = inputs[0], inputs[1]
    out_channels = int(weight.ty.shape.values[0])
    ones = relax.const(np.ones(out_channels, "float32"))
    zeros = relax.const(np.zeros(out_channels, "float32"))
    if name == "BinaryLinear":
        return call("bnn.linear", [x, weight, ones, zeros], {"in_features": int(attrs["in_features"]), "ternary": 0})
    geometry = ConvolutionAttributes(
        kernel_shape=tuple(attrs["kernel_shape"]),
        strides=tuple(attrs["strides"]),
        pads=tuple(attrs["pads"]),
        group=int(attrs["group"]),
        in_channels=int(attrs["in_channels"]),
    )
    if name == "TapScaledBinaryConv":
        return call("bnn.tap_scaled_conv2d", [x, weight, inputs[2], zeros], geometry)
    return call("bnn.conv2d", [x, weight, ones, zeros], geometry)
