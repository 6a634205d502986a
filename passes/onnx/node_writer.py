"""Write the nodes that take the place of one node, under its name and with its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnn_deploy.ops.operator import DOMAIN
from bnn_deploy.passes.onnx.graph import layer_name, new_constant, replace_value

Extents = Iterable[int | ir.SymbolicDim | str | None]


class NodeWriter:
    """Puts nodes just before ``old``; in most rules the last call is ``replace``.

    A node is called ``old``, slash, operator and number, unless it is given a name, a copy as its original: names are made
    unique, and those of PyTorch modules, at the end (``name_modules``), from the metadata that all nodes take over.
    """

    def __init__(self, graph: ir.Graph, old: ir.Node) -> None:
        self.graph = graph
        self.old = old
        self.name = layer_name(old)
        self._count = 0

    def constant(self, name: str, array: np.ndarray | np.generic) -> ir.Value:
        """An initializer, of a numpy number too; float64 becomes float32, rounded once."""
        array = np.asarray(array)
        return new_constant(self.graph, name, array.astype(np.float32) if array.dtype == np.float64 else array)

    def write_node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        shape: Extents | None = None,
        ours: bool = False,
        name: str | None = None,
    ) -> ir.Node:
        """One node with one output, of the type of ``old``'s.

        Args:
            shape: of the output; None where it is not known.
            ours: whether the operator is of the domain ``bnn_deploy``, else of standard ONNX.
        """
        output = self._output(operator, shape, self.old.outputs[0].type)
        node = ir.node(
            operator,
            inputs,
            dict(attributes or {}),
            domain=DOMAIN if ours else "",
            outputs=[output],
            name=name or f"{self.name}/{operator}_{self._count}",
            metadata_props=dict(self.old.metadata_props),
        )
        self.old.prepend(node)
        return node

    def write(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        shape: Extents | None = None,
        ours: bool = False,
        name: str | None = None,
    ) -> ir.Value:
        """The output of ``write_node``."""
        return self.write_node(operator, inputs, attributes, shape, ours, name).outputs[0]

    def copy(self, node: ir.Node, inputs: Sequence[ir.Value | None], shape: Extents | None = None) -> ir.Node:
        """``node`` once more, with its name and metadata but other inputs; it has one output, of ``shape``."""
        copied = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            outputs=[self._output(node.op_type, shape, node.outputs[0].type)],
            name=node.name,
            metadata_props=dict(node.metadata_props),
        )
        self.old.prepend(copied)
        return copied

    def replace(self, new: ir.Value) -> None:
        """Everyone reads ``new`` instead of the first output of ``old``, which goes; the value keeps its name."""
        value = self.old.outputs[0]
        name = value.name
        replace_value(value, new)
        self.graph.remove(self.old, safe=True)
        if not new.is_graph_output():
            value.name, new.name = f"{name}/replaced", name

    def _output(self, operator: str, shape: Extents | None, kind: ir.TypeProtocol | None) -> ir.Value:
        self._count += 1
        name = f"{self.old.outputs[0].name}/{operator}_{self._count}"
        return ir.Value(name=name, shape=None if shape is None else ir.Shape(shape), type=kind)
