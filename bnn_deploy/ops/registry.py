"""The operators of the ``bnn_deploy`` domain, by name."""

from __future__ import annotations

from onnx import FunctionProto

from bnn_deploy.ops.binary_conv import BINARY_CONV
from bnn_deploy.ops.binary_linear import BINARY_LINEAR
from bnn_deploy.ops.operator import DOMAIN, OPSET, STANDARD_OPSET, Operator
from bnn_deploy.ops.sign import SIGN
from bnn_deploy.ops.tap_scaled_binary_conv import TAP_SCALED_BINARY_CONV
from bnn_deploy.ops.ternary import TERNARY

OPERATORS: dict[str, Operator] = {
    operator.name: operator for operator in (SIGN, TERNARY, BINARY_CONV, TAP_SCALED_BINARY_CONV, BINARY_LINEAR)
}

__all__ = ["DOMAIN", "OPERATORS", "OPSET", "STANDARD_OPSET", "functions"]


def functions() -> list[FunctionProto]:
    """One model-local function per operator, in the order of ``OPERATORS``; an ONNX file carries those it uses."""
    return [operator.function() for operator in OPERATORS.values()]
