"""The operators of the ``bnn_deploy`` domain, by name."""

from __future__ import annotations

from typing import Protocol

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

__all__ = [
    "DOMAIN",
    "OPERATORS",
    "OPSET",
    "STANDARD_OPSET",
    "functions",
    "is_activation",
    "is_binary_layer",
    "operator_of",
]


class Node(Protocol):
    """A node of onnx or of onnx_ir."""

    @property
    def domain(self) -> str: ...
    @property
    def op_type(self) -> str: ...


def operator_of(node: Node) -> Operator | None:
    """The operator that ``node`` calls; None if it is of another domain, or of none that is known."""
    return OPERATORS.get(node.op_type) if node.domain == DOMAIN else None


def is_binary_layer(node: Node) -> bool:
    """Whether ``node`` is a layer whose second input is its packed weights W, uint8 (O, ceil(K/8))."""
    operator = operator_of(node)
    return operator is not None and operator.weight_bits is not None


def is_activation(node: Node) -> bool:
    """Whether ``node`` binarises: an operator of ours that has no weights."""
    operator = operator_of(node)
    return operator is not None and operator.weight_bits is None


def functions() -> list[FunctionProto]:
    """One model-local function per operator, in the order of ``OPERATORS``; an ONNX file carries those it uses."""
    return [operator.function() for operator in OPERATORS.values()]
