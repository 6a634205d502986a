"""Words for what the input of a layer holds, for reports.

Conv(Relu(x))                          real values from Relu 'features.0.relu'
Conv(Round(Clip(x / s, 0, 3)) * s)     4 values (2 bits) from Round 'features.0.quantise'
Conv(x)                                the network input
Conv(Add(Sub(0.3 * Sign(x), x), x))    real values from Add 'add', which could not be proved to take few values
"""

from __future__ import annotations

import onnx_ir as ir

from bnn_deploy.passes.onnx.activations.binarisation import binarisation_of
from bnn_deploy.passes.onnx.activations.elementwise import COMPARISONS
from bnn_deploy.passes.onnx.activations.find_activations import AFFINE, PASSED, computed_operands, step_function_of
from bnn_deploy.passes.onnx.activations.one_variable import candidates, positions
from bnn_deploy.passes.onnx.activations.step_function import StepFunction
from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_binary,
    is_binary_activation,
    is_standard,
    layer_name,
    sources_through,
)

_STEPS = COMPARISONS | {"Sign", "Round", "Floor", "Ceil", "Where", "Cast"}


def describe_values(value: ir.Value) -> str:
    """What the input of a layer holds, in words: "signs", "real values from Relu 'features.relu'", "the network input", ...

    Several sources (a Concat) are joined by "and". Meant for a graph in which the binary activations are recognised.
    """
    node = value.producer()
    order = positions(node.graph) if node is not None and isinstance(node.graph, ir.Graph) else {}
    words = list(dict.fromkeys(_describe(source, order) for source in sources_through(value, PASSED)))
    return " and ".join(words[:3]) + (" and others" if len(words) > 3 else "")


def _describe(value: ir.Value, order: dict[ir.Node, int]) -> str:
    node = value.producer()
    if constant_of(value) is not None:
        return "constants"
    if node is None:
        return "the network input" if value.is_graph_input() else f"real values from '{value.name}'"
    if is_binary(node, "Ternary") or (is_binary(node, "Sign") and node.attributes.get_int("zero", -1) == 0):
        return "three values (-1, 0, +1)"
    if is_binary(node, "Sign"):
        return "signs"
    if is_standard(node, *AFFINE):
        inner = computed_operands(node)
        made = inner[0].producer() if len(inner) == 1 else None
        if is_binary_activation(made):
            return f"{_describe(inner[0], order)}, scaled or moved by {node.op_type} '{layer_name(node)}'"
    reason = ""
    levels = node
    for candidate in candidates(value, order):
        if not any(step.op_type in _STEPS for step in candidate.nodes):
            continue
        function = step_function_of(candidate)
        found = binarisation_of(function) if isinstance(function, StepFunction) else function.reason
        levels = next((step for step in reversed(candidate.nodes) if step.op_type in _STEPS), node)
        reason = found if isinstance(found, str) else ""
        if isinstance(function, StepFunction):
            break
    called = f"{levels.op_type} '{layer_name(levels)}'"
    if reason.startswith("takes ") and "many" not in reason:
        return f"{reason.removeprefix('takes ')} from {called}"
    real = f"real values from {node.op_type} '{layer_name(node)}'"
    return f"{real}, which {reason}" if reason and reason != "takes many values" else real
