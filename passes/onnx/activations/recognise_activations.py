"""Recognise binary activations by what they compute, however they are written.

Before::

    s = Sign(x);  p = Clip(x, -1, 1);  a = Add(Sub(s, p), p);  Conv(a, W)
After::

    a = bnn_deploy::Sign(x, 0, zero=...);  Conv(a, W)

For each input of a Conv, ConvTranspose, Gemm or MatMul, seen through data movement, pooling and padding, the elementwise graph
behind it is proved (step_function.py) to take two or three values, and replaced by a Sign or Ternary and, where the values are
not ±1, a Mul and an Add of one number. Every reader of the value gets the new one. The new node has the name and metadata of
the node it stands for (the Sign, the Where, ...). One source that is binarised in one way becomes one node.
Where: on a normalised graph, before the layers are recognised.

The result equals the file's for every input |x| <= 2**24 that is a number, but for one choice: where the graph gives 0 exactly
at the threshold (torch.sign), ``sign_zero`` decides; "auto" keeps it unless only rounding could bring x there
(rare_zero.py).

Not handled: quantisers of more values (``describe_values`` says how many), a factor per channel (left in the graph; what is
behind it is recognised), several variables, elements that are not float32, subgraphs of If and Loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from bnn_deploy.onnx_files.standard_operators import LAYERS
from bnn_deploy.ops.operator import DOMAIN, OPSET
from bnn_deploy.passes.onnx.activations.binarisation import Binarisation
from bnn_deploy.passes.onnx.activations.find_activations import FoundActivation, activations_behind, computed_operands
from bnn_deploy.passes.onnx.activations.one_variable import positions
from bnn_deploy.passes.onnx.activations.rare_zero import is_rare
from bnn_deploy.passes.onnx.graph import is_standard, layer_name, new_constant, replace_value
from bnn_deploy.passes.onnx.import_report import ActivationReport, SignZero

# Operators by which a binarisation is called, the most telling first.
_DECIDING = (
    "Sign",
    "Round",
    "Where",
    "GreaterOrEqual",
    "Greater",
    "LessOrEqual",
    "Less",
    "Equal",
    "Floor",
    "Ceil",
    "Cast",
)


def recognise_activations(model: ir.Model, sign_zero: SignZero = "auto") -> list[ActivationReport]:
    """Replace binary activations by ``bnn_deploy::Sign`` and ``Ternary`` nodes, in place.

    Args:
        model: normalised: standard opset >= 21, constants folded, shapes inferred.
        sign_zero: what sign(0) becomes where the graph says 0.

    Returns:
        The report of each new node, in the order of the graph.
    """
    graph = model.graph
    order = positions(graph)
    # All proofs come before any change, as one value's binarisation may be part of another's expression.
    found: dict[ir.Value, FoundActivation] = {}
    for node in graph:
        for value in _layer_inputs(node):
            for result in activations_behind(value, order):
                found.setdefault(result.value, result)
    groups: dict[tuple[object, ...], list[FoundActivation]] = {}
    for result in found.values():
        groups.setdefault(result.key, []).append(result)
    named = [(members, _deciding_node(members, order)) for members in groups.values()]
    named.sort(key=lambda entry: order[entry[1]])
    taken: set[ir.Node] = set()
    reports = []
    for members, deciding in named:
        own = members[0].value.producer() if deciding in taken else deciding
        assert own is not None
        taken.add(own)
        reports.append(_replace(graph, members, own, sign_zero))
    if groups:
        graph.opset_imports.setdefault(DOMAIN, OPSET)
        common.RemoveUnusedNodesPass()(model)
        # What is left of a node by which a new one is called serves other readers.
        new = {node.name for node in graph if node.domain == DOMAIN}
        for node in graph:
            if node.name in new and node.domain != DOMAIN:
                node.name = f"{node.name}/{node.op_type}"
    return reports


def _layer_inputs(node: ir.Node) -> list[ir.Value]:
    """What a layer computes with, constants aside."""
    return (
        [value for value in computed_operands(node) if value in node.inputs[:2]] if is_standard(node, *LAYERS) else []
    )


def _deciding_node(members: list[FoundActivation], order: dict[ir.Node, int]) -> ir.Node:
    """The node of the file after which a binarisation is called."""
    nodes = members[0].candidate.nodes
    for operator in _DECIDING:
        same = [node for node in nodes if node.op_type == operator]
        if same:
            return same[-1]
    return nodes[-1]


def _replace(
    graph: ir.Graph, members: list[FoundActivation], deciding: ir.Node, sign_zero: SignZero
) -> ActivationReport:
    """One Sign or Ternary after the source, and for each value that it serves the Mul and Add that are needed."""
    first = members[0]
    source, how, vector = first.candidate.source, first.binarisation, first.candidate.threshold
    name = layer_name(deciding)
    everywhere = all(member.everywhere for member in members)
    attribute, note = _zero(first, sign_zero)
    limit = "" if everywhere else "The same as in the file for every |x| <= 2^24."
    report = ActivationReport(
        name=name,
        source=str(source.name),
        kind="ternary" if attribute is None else "sign with zero" if attribute == 0 else "sign",
        graph_zero=how.zero or 0,
        compiled_zero=attribute or 0,
        threshold=how.threshold if vector is None else str(vector.name),
        note=" ".join(sentence for sentence in (note, limit) if sentence),
    )
    writer = _Writer(graph, source, name, deciding.metadata_props)
    signs = writer.binarise(how, attribute, vector)
    for member in members:
        result = writer.scaled(signs, member.binarisation.scale, member.binarisation.offset)
        result.shape = source.shape
        replace_value(member.value, result)
    return report


def _zero(found: FoundActivation, sign_zero: SignZero) -> tuple[int | None, str]:
    """Sign's attribute zero (None for Ternary) and what to say of it."""
    how = found.binarisation
    if how.zero is None:
        return None, f"0 for |x| <= {how.threshold:g}, as in the file."
    if how.zero != 0:
        return how.zero, ""
    at = "sign(0)" if how.threshold == 0.0 else f"sign(x = {how.threshold:g})"
    if sign_zero != "auto":
        chosen = int(sign_zero)
        made = "stays 0, as in the file" if chosen == 0 else f"is 0 in the file and becomes {sign_zero}"
        return chosen, f"{at} {made} (--sign-zero {sign_zero})."
    rare, why = is_rare(found.candidate.source, how.threshold)
    if rare:
        return (
            -1,
            f"{at} is 0 in the file and becomes -1, as only rounding could bring it about: {why} (--sign-zero 0 keeps it).",
        )
    return 0, f"{at} stays 0, as in the file: {why} (--sign-zero -1 makes it two-valued and faster)."


def _is_of_channels(threshold: ir.Value, source: ir.Value) -> bool:
    """Whether thresholds vary only over channels, the last axis or, of images, also the first two: Sign runs no others."""
    shape, rank = threshold.shape, len(source.shape or ())
    offset = rank - len(shape or ())
    axes = {offset + axis for axis, extent in enumerate(shape or ()) if extent != 1}
    return axes <= {rank - 1} or (rank == 4 and axes <= {0, 1})


@dataclass
class _Writer:
    """Puts new nodes into the graph, each after the one before."""

    graph: ir.Graph
    source: ir.Value
    name: str
    metadata: dict[str, str]
    last: ir.Node | None = None

    def binarise(self, how: Binarisation, attribute: int | None, threshold: ir.Value | None) -> ir.Value:
        """The Sign or Ternary of the source."""
        if attribute is None:
            stretched = self.scaled(self.source, how.stretch, 0.0)
            return self._node("Ternary", [stretched], DOMAIN, self.name)
        source = self.source
        if threshold is not None and not _is_of_channels(threshold, source):
            # x - t is 0 exactly where x == t, and has the sign of the difference: float32 underflows gradually.
            source, threshold = self._node("Sub", [source, threshold], "", f"{self.name}/Sub"), None
        if threshold is None:
            threshold = new_constant(self.graph, f"{self.name}.threshold", np.array(how.threshold, np.float32))
        return self._node("Sign", [source, threshold], DOMAIN, self.name, {"zero": attribute})

    def scaled(self, value: ir.Value, scale: float, offset: float) -> ir.Value:
        """``value * scale + offset``, without what does nothing."""
        for operator, number, nothing in (("Mul", scale, 1.0), ("Add", offset, 0.0)):
            if number != nothing:
                constant = new_constant(self.graph, f"{self.name}.{operator.lower()}", np.array(number, np.float32))
                value = self._node(operator, [value, constant], "", f"{self.name}/{operator}")
        return value

    def _node(
        self, operator: str, inputs: list[ir.Value], domain: str, name: str, attributes: dict[str, int] | None = None
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes or {}, domain=domain, name=name)
        node.metadata_props.update(self.metadata)
        output = node.outputs[0]
        output.name = f"{name}_output"
        output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), self.source.shape
        before = self.last or self.source.producer()
        if before is None:
            first = next(iter(self.graph))
            self.graph.insert_before(first, node)
        else:
            self.graph.insert_after(before, node)
        self.last = node
        return output
