"""What every operator of the ``bnn_deploy`` domain is made of, and the checks they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from bnn_deploy.errors import ModelFileError

DOMAIN = "bnn_deploy"
OPSET = 1

# Standard operator set used by the function bodies and by exported models. 18 brought BitwiseAnd; 21 is what
# GroupNormalization with one scale per channel (PyTorch's meaning) needs, so that both live in one file.
STANDARD_OPSET = 21

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Operator:
    """One operator: its schema, its shape rule, its numpy meaning and its body of standard ONNX operators.

    Attributes:
        name: ``op_type`` in the domain ``bnn_deploy``.
        inputs: names of the inputs, all required.
        infer_shape: shapes of the inputs and attributes -> shape of the one output; checks the attributes against the
            shapes and raises ModelFileError when they disagree.
        reference: arrays of the inputs and attributes -> float32 output; written apart from ``body``.
        body: nodes of the function; reads ``inputs``, writes ``Y``.
        required: attribute name -> 1 for one integer, else the length of a list of integers.
        defaults: attribute name -> integer used when a node does not give it.
        weight_bits: attributes -> K, the weights of one output in a binary layer, whose second input is the packed W;
            None for the other operators.
    """

    name: str
    inputs: tuple[str, ...]
    infer_shape: Callable[[Sequence[Shape], Attributes], Shape]
    reference: Callable[[Sequence[np.ndarray], Attributes], np.ndarray]
    body: Callable[[], list[NodeProto]]
    required: Mapping[str, int] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    weight_bits: Callable[[Attributes], int] | None = None

    def function(self, standard_opset: int = STANDARD_OPSET) -> FunctionProto:
        """The model-local ONNX function that gives this operator its meaning in any runtime.

        Its body says the same in every version of the standard operators from ``STANDARD_OPSET`` on.
        """
        return helper.make_function(
            DOMAIN,
            self.name,
            list(self.inputs),
            ["Y"],
            self.body(),
            [helper.make_opsetid("", standard_opset)],
            attributes=list(self.required),
            attribute_protos=[helper.make_attribute(name, value) for name, value in self.defaults.items()],
        )

    def attributes_of(self, node: NodeProto) -> dict[str, Any]:
        """The node's attributes with defaults filled in, checked for presence, type and length.

        Raises:
            ModelFileError: names the node, the attribute, what was found and what is expected.
        """
        where = describe(node)
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.name not in self.required and attribute.name not in self.defaults:
                known = ", ".join([*self.required, *self.defaults]) or "none"
                raise ModelFileError(f"{where} has an unknown attribute {attribute.name!r}; it may have: {known}.")
            length = self.required.get(attribute.name, 1)
            found[attribute.name] = _integers(where, attribute, length)
        for name in self.required:
            if name not in found:
                raise ModelFileError(f"{where} lacks the attribute {name!r}; export the model again.")
        return {**self.defaults, **found}


def describe(node: NodeProto) -> str:
    """How errors name a node: operator type and node name (the PyTorch module path), else its first output."""
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} node {name!r}"


def _integers(where: str, attribute: AttributeProto, length: int) -> int | list[int]:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.INT and length == 1:
        return int(value)
    if attribute.type == AttributeProto.INTS and len(value) == length and length > 1:
        return [int(item) for item in value]
    kind = "one integer" if length == 1 else f"a list of {length} integers"
    raise ModelFileError(f"{where}: attribute {attribute.name!r} must be {kind}, found {value!r}.")


def require(condition: bool, message: str) -> None:
    """Raise ModelFileError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ModelFileError(message)


def require_three_valued(operator: str, values: np.ndarray) -> None:
    """Raise ModelFileError unless every element is -1, 0 or +1: binary layers accept nothing else."""
    wrong = ~np.isin(values, (-1, 0, 1))
    if wrong.any():
        raise ModelFileError(
            f"{operator}: the input X may hold only -1, 0 and +1, found {values[wrong].flat[0]!s}; "
            "put a Sign or Ternary node before it."
        )


def constant(output: str, values: Any, dtype: type = np.float32) -> NodeProto:
    """A Constant node of a function body."""
    return helper.make_node("Constant", [], [output], value=onnx.numpy_helper.from_array(np.asarray(values, dtype)))


def attribute_constant(output: str, attribute: str, is_list: bool) -> NodeProto:
    """A Constant node whose int64 value is the calling node's attribute."""
    node = helper.make_node("Constant", [], [output])
    kind = AttributeProto.INTS if is_list else AttributeProto.INT
    return with_references(node, {"value_ints" if is_list else "value_int": (attribute, kind)})


def with_references(node: NodeProto, references: Mapping[str, tuple[str, AttributeProto.AttributeType]]) -> NodeProto:
    """Make attributes of a body node refer to attributes of the calling node: name -> (caller's name, type)."""
    for name, (caller_name, kind) in references.items():
        node.attribute.append(AttributeProto(name=name, ref_attr_name=caller_name, type=kind))
    return node
