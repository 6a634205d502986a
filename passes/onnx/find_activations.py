"""Find the binary activations behind a value: seen through data movement, each proved.

Before (graph), asked for the input ``m`` of a layer::

    a = Where(Relu(x) > 0, 1, -1);  m = MaxPool(Mul(a, 0.5))
After: one ``FoundActivation``, of the value ``a`` (``Mul`` keeps it a multiple of signs, but is no part of it), computed from x
as Sign(x, 0).

The nearest source is tried first, and the nearest that is proved is taken; but where a step or a bound makes that source, what
is behind it may be binarised more simply (``Sign(Relu(x))`` as ``x > 0``), so the search goes on.

Not handled: sums of several activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from bnn_deploy.passes.onnx.binarisation import Binarisation, binarisation_of
from bnn_deploy.passes.onnx.graph import DATA_MOVEMENT, constant_of, is_standard, sources_through
from bnn_deploy.passes.onnx.one_variable import Candidate, candidates
from bnn_deploy.passes.onnx.step_function import StepFunction, Unproved, prove, prove_around

PASSED = DATA_MOVEMENT | {"MaxPool", "Pad"}
AFFINE = ("Add", "Div", "Mul", "Sub")
# A source that one of these makes is not the end: what is behind it may be binarised more simply, Sign(Relu(y)) as y > 0.
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
    """The binarisations behind ``value``, seen through data movement and through scaling that is no part of them."""
    for source in sources_through(value, PASSED):
        result = _proved(source, order)
        if result is not None:
            yield result
            continue
        node = source.producer()
        if node is not None and is_standard(node, *AFFINE):
            inner = computed_operands(node)
            if len(inner) == 1:
                yield from activations_behind(inner[0], order)


def computed_operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that are no constants."""
    return [operand for operand in node.inputs if operand is not None and constant_of(operand) is None]


def step_function_of(candidate: Candidate) -> StepFunction | Unproved:
    """What a candidate computes."""
    return (prove if candidate.threshold is None else prove_around)(candidate.expression)


def _proved(value: ir.Value, order: dict[ir.Node, int]) -> FoundActivation | None:
    best: FoundActivation | None = None
    for candidate in candidates(value, order):
        function = step_function_of(candidate)
        if isinstance(function, StepFunction):
            numbers = {float(number[0]) for number in candidate.expression.constant_values()}
            choice = binarisation_of(function, numbers)
            if isinstance(choice, Binarisation):
                best = FoundActivation(value, candidate, function.everywhere, choice)
        maker = candidate.source.producer()
        if best is not None and (maker is None or maker.op_type not in _OPENED):
            break
    return best
