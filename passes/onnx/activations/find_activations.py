"""Find the binary activations behind a value: seen through data movement, each proved.

Before (graph), asked for the input ``m`` of a layer::

    a = Where(Relu(x) > 0, 1, -1);  m = MaxPool(Mul(a, 0.5))
After: one ``FoundActivation``, of the value ``a`` (``Mul`` keeps it a multiple of signs, but is no part of it), computed from x
as Sign(x, 0).

The nearest source that is proved is taken; but where there are steps or bounds further back, what is behind them may be
binarised more simply (``Sign(Relu(x))`` as ``x > 0``), and a source behind them that is proved is taken instead.

Not handled: sums of several activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT
from bnn_deploy.passes.onnx.activations.binarisation import Binarisation, binarisation_of
from bnn_deploy.passes.onnx.activations.one_variable import Candidate, candidates
from bnn_deploy.passes.onnx.activations.step_function import StepFunction, Unproved, prove, prove_around
from bnn_deploy.passes.onnx.graph import constant_of, is_standard, sources_through

PASSED = DATA_MOVEMENT | {"MaxPool", "Pad"}
# Scalings looked behind for one layer.
_MOST_VALUES = 64
AFFINE = ("Add", "Div", "Mul", "Neg", "Sub")
# Operators that are better left behind, as part of the binarisation.
_OPENED = frozenset({"Cast", "Ceil", "Clip", "Floor", "Max", "Min", "Relu", "Round", "Sign", "Where"})


@dataclass(frozen=True)
class FoundActivation:
    """A value of the graph and what it was proved to be."""

    value: ir.Value
    candidate: Candidate
    everywhere: bool
    binarisation: Binarisation

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for values that one node can serve."""
        how = self.binarisation
        return self.candidate.source, self.candidate.threshold, how.zero, how.threshold


def activations_behind(value: ir.Value, order: dict[ir.Node, int]) -> Iterator[FoundActivation]:
    """The binary activations behind ``value``, seen through data movement and through scaling that is no part of them.

    Args:
        order: see ``one_variable.positions``.
    """
    pending, seen = [value], {value}
    while pending and len(seen) <= _MOST_VALUES:
        for source in sources_through(pending.pop(), PASSED):
            found = _proved(source, order)
            if found is not None:
                yield found
                continue
            node = source.producer()
            inner = computed_operands(node) if is_standard(node, *AFFINE) else []
            if len(inner) == 1 and inner[0] not in seen:
                seen.add(inner[0])
                pending.append(inner[0])


def computed_operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that are no constants."""
    return [operand for operand in node.inputs if operand is not None and constant_of(operand) is None]


def step_function_of(candidate: Candidate) -> StepFunction | Unproved:
    """What a candidate computes."""
    return (prove if candidate.threshold is None else prove_around)(candidate.expression)


def _proved(value: ir.Value, order: dict[ir.Node, int]) -> FoundActivation | None:
    best: FoundActivation | None = None
    for candidate in candidates(value, order):
        if best is not None and not _opened(candidate) - _opened(best.candidate):
            continue
        function = step_function_of(candidate)
        if isinstance(function, StepFunction):
            numbers = {float(number[0]) for number in candidate.expression.constant_values()}
            choice = binarisation_of(function, numbers)
            if isinstance(choice, Binarisation):
                best = FoundActivation(value, candidate, function.everywhere, choice)
    return best


def _opened(candidate: Candidate) -> set[ir.Node]:
    return {node for node in candidate.nodes if node.op_type in _OPENED}
