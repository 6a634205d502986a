"""What the rules of this package write with: the standard nodes that take the place of one QONNX node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.operator import describe

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass
class Scope:
    """What is known of the values that the nodes of one graph can read, outer graphs included.

    Attributes:
        constants: initializers and values of Constant nodes.
        types: element type of each value, where known.
        shapes: extents of each value, None for a dynamic one, where the rank is known.
        taken: all names of values and nodes in the whole model; new ones are added.
    """

    taken: set[str]
    constants: dict[str, TensorProto] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    def inside(self, graph: GraphProto) -> Scope:
        """This scope with what ``graph``, whose shapes are inferred, adds."""
        scope = Scope(self.taken, dict(self.constants), dict(self.types), dict(self.shapes))
        for value in (*graph.input, *graph.value_info, *graph.output):
            scope._add_value(value)
        for tensor in graph.initializer:
            scope._add_constant(tensor.name, tensor)
        for node in graph.node:
            if node.op_type == "Constant" and len(node.attribute) == 1:
                scope._add_constant(node.output[0], _tensor(node.attribute[0]))
        return scope

    def array(self, name: str) -> np.ndarray | None:
        """The array of a constant, None for what is computed."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _add_value(self, value: ValueInfoProto) -> None:
        kind = value.type.tensor_type
        if kind.elem_type:
            self.types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            self.shapes[value.name] = tuple(
                size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim
            )

    def _add_constant(self, name: str, tensor: TensorProto | None) -> None:
        if tensor is not None:
            self.constants[name] = tensor
            self.shapes[name] = tuple(tensor.dims)
            self.types[name] = tensor.data_type


def _tensor(attribute: AttributeProto) -> TensorProto | None:
    """The value of a Constant node from its attribute; None for text and sparse tensors, which no operator here reads."""
    value = helper.get_attribute_value(attribute)
    if attribute.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.asarray(value, np.float32))
    if attribute.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.asarray(value, np.int64))
    return value if attribute.name == "value" and isinstance(value, TensorProto) else None


class Replacement:
    """The nodes and initializers written so far in place of ``node``; its questions are refused in one sentence.

    Every node written has the metadata of ``node``, one of them its name, the others names made from it.
    """

    def __init__(self, node: NodeProto, scope: Scope) -> None:
        self.node = node
        self.scope = scope
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def inputs(self, count: int) -> tuple[str, ...]:
        """The names of the node's inputs; refused unless there are ``count`` of them and one output."""
        names = tuple(self.node.input)
        if len(names) != count or not all(names) or len(self.node.output) != 1:
            raise self.refusal(f"needs {count} inputs and one output, found {len(names)} and {len(self.node.output)}")
        return names

    def attribute(self, name: str, default: Any) -> Any:
        """The attribute's value (text decoded), or ``default``; refused unless of the default's type."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                try:
                    value = value.decode() if isinstance(value, bytes) else value
                except UnicodeDecodeError as error:
                    raise self.refusal(f"has the attribute {name!r}, which is not text") from error
                if type(value) is not type(default):
                    raise self.refusal(f"has the attribute {name!r} = {value!r}, which should be like {default!r}")
                return value
        return default

    def constant(self, name: str, what: str) -> np.ndarray:
        """The array of the value ``name``; refused unless it is one. ``what`` names it for the message."""
        array = self.scope.array(name)
        if array is None:
            raise self.refusal(f"computes its {what} ({name!r}), which must be an initializer")
        return array

    def float_type(self, *names: str) -> int:
        """The one floating-point type of these values (FLOAT where the file says nothing); others are refused."""
        kinds = {self.scope.types[name] for name in names if name in self.scope.types} or {TensorProto.FLOAT}
        if len(kinds) > 1 or not kinds.issubset(FLOATS):
            names_of = {number: name for name, number in TensorProto.DataType.items()}
            found = ", ".join(sorted(names_of.get(kind, f"the unknown type {kind}") for kind in kinds))
            raise self.refusal(f"reads {found}, but all it reads must be floating point of one type")
        return kinds.pop()

    def is_neutral(self, name: str, value: float, other: str) -> bool:
        """Whether ``name`` is a constant full of ``value`` that an operation with ``other`` can do without.

        That is when broadcasting it leaves the shape of ``other`` as it is.
        """
        array = self.scope.array(name)
        if array is None or not np.all(array == value):
            return False
        shape = self.scope.shapes.get(other)
        if array.ndim == 0 or shape is None or array.ndim > len(shape):
            return array.ndim == 0
        return all(size in (1, there) for size, there in zip(array.shape[::-1], shape[::-1], strict=False))

    def new_constant(self, array: np.ndarray, name: str, kind: int) -> str:
        """The name of a new initializer that holds ``array`` as the element type ``kind``."""
        name = self._unique(f"{self.node.output[0]}.{name}")
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def add(self, op_type: str, *inputs: str, named: bool = False, **attributes: Any) -> str:
        """Append a standard node with one output and return that output's name.

        Args:
            op_type: standard operator.
            inputs: names of values.
            named: whether this node bears the name of the node that is replaced (the first such does).
            attributes: as for ``onnx.helper.make_node``.
        """
        output = self._unique(f"{self.node.output[0]}.{op_type}")
        node = helper.make_node(op_type, inputs, [output], **attributes)
        if self.node.name:
            first = all(earlier.name != self.node.name for earlier in self.nodes)
            node.name = self.node.name if named and first else self._unique(f"{self.node.name}/{op_type}")
        node.metadata_props.extend(self.node.metadata_props)
        self.nodes.append(node)
        return output

    def finish(self, result: str) -> None:
        """Let ``result`` go by the name of the replaced node's output."""
        output = self.node.output[0]
        for node in self.nodes:
            if node.output[0] == result:
                node.output[0] = output
                return
        self.add("Identity", result, named=True)
        self.nodes[-1].output[0] = output

    def refusal(self, problem: str) -> ModelFileError:
        """The error that says what is wrong with the node: ``describe(node) + problem``."""
        return ModelFileError(f"{describe(self.node)} {problem}.")

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.scope.taken:
            count += 1
            unique = f"{name}_{count}"
        self.scope.taken.add(unique)
        return unique
