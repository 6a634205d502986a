"""What lies in the ONNX graph between the values that are compared: where a wrong one comes from, how exact a sign must be."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto

from bnn_deploy.bundle.tensor_table import TensorTable
from bnn_deploy.ops.registry import is_activation


class GraphPaths:
    """The graph that the compiler sees, cut at the values of a table.

    Args:
        model: as ``frontend.open_model.open_model`` gives it.
        table: the values that are compared and then replaced, so that nothing wrong passes through them.
        foreign: the file is from elsewhere: the reference's bits are the file's, its real values those of ``model``.

    Attributes:
        exact: binarised value -> the stored value before it, which leaves rounding no difference to explain.
    """

    def __init__(self, model: ModelProto, table: TensorTable, foreign: bool = False) -> None:
        self._nodes = list(model.graph.node)
        self._producers = {output: node for node in self._nodes for output in node.output if output}
        self._constants = {tensor.name for tensor in model.graph.initializer}
        self._computed = {value.name for value in model.graph.input} - self._constants
        for node in self._nodes:
            if self._computed & set(node.input):
                self._computed.update(node.output)
        self._steps: Mapping[tuple[str, str], int] = {entry.key: entry.step for entry in table.entries}
        self._tensors = {entry.tensor for entry in table.entries}
        sources = {} if foreign else {tensor: self._exact_source(tensor) for tensor in self._tensors}
        self.exact: Mapping[str, str] = {tensor: source for tensor, source in sources.items() if source}

    def fed_by(self, tensor: str) -> tuple[str, ...]:
        """Names of the nodes that make ``tensor`` of the values of the table before it, in the order of the graph."""
        found: set[int] = set()
        pending = [tensor]
        while pending:
            node = self._producers.get(pending.pop())
            # What depends on constants alone is a constant.
            if node is None or id(node) in found or not self._computed & set(node.output):
                continue
            found.add(id(node))
            pending += [name for name in node.input if name not in self._tensors]
        return tuple(node.name or node.output[0] for node in self._nodes if id(node) in found)

    def _exact_source(self, tensor: str) -> str:
        """The stored value that a binarised value is made of alone, or with a constant added; "" if there is none.

        The kernel is then given the very x of the reference. x + b is rounded alike on both sides, and where the compiler makes
        x > -b of x + b > 0 the two are equivalent (``passes.relax.fold_threshold``).
        """
        sign = self._producers.get(tensor)
        if sign is None or not is_activation(sign) or not all(name in self._constants for name in sign.input[1:]):
            return ""
        x = sign.input[0]
        before = self._producers.get(x)
        if (x, "floats") not in self._steps and before is not None and before.op_type in ("Add", "Sub"):
            x = self._variable(before)
        step, own = self._steps.get((x, "floats")), self._steps.get((tensor, "words"))
        # Of one kernel call's results, none is read again.
        return x if step is not None and own is not None and step < own else ""

    def _variable(self, node: NodeProto) -> str:
        """The one operand that is not a constant; "" if there are two."""
        operands = [name for name in node.input if name not in self._constants]
        return operands[0] if len(operands) == 1 else ""
