"""Whether a value hits a number (the threshold of a sign) exactly only by an accident of rounding.

    Sign(Add(BatchNormalization(Conv(...)), shortcut))    rare: real mean, scale and bias of 512 channels would have to conspire
    Sign(Relu(...)), Sign(image), Sign(BinaryConv(...))   not rare: many exact zeros

It decides what ``torch.sign``'s third value costs: where zeros are to be expected they must be kept. So the answer is "rare"
only for a reason that is named, and "not rare" for everything unknown. The question is walked backwards together with the
numbers in question: ``x + b == t`` where ``x == t - b``. At a value of which nothing is known, integers and a single number for
all channels count as likely (pixels, sums of ±1, a quantiser's levels), a vector of learned numbers without an integer as rare.

Not handled: numbers that depend on the channel are taken as a set, so one bad channel decides for all; and of a large set some
stand for all, the integers first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnn_deploy.onnx_files.standard_operators import DATA_MOVEMENT, LAYERS
from bnn_deploy.passes.onnx.graph import (
    constant_of,
    is_standard,
    layer_name,
    moved_inputs,
    optional_constant,
    required_input,
)

_NORMALISATIONS = ("GroupNormalization", "InstanceNormalization", "LayerNormalization")
# Values looked at before the answer is "not rare", and how many numbers stand for a larger set.
_MOST_VALUES = 256
_MOST_NUMBERS = 64


def is_rare(value: ir.Value, number: float = 0.0) -> tuple[bool, str]:
    """Whether ``value`` equals ``number`` only by accident, and why, as a clause for the user."""
    walk = _Walk()
    rare = walk.rare(value, np.array([number]))
    return rare, walk.why


class _Walk:
    """One question: ``why`` is the clause of the value at which the answer so far was found."""

    def __init__(self) -> None:
        self.why = ""
        self.looked_at = 0

    def rare(self, value: ir.Value, numbers: np.ndarray) -> bool:
        """Whether ``value`` is one of ``numbers`` (float64) only by accident."""
        self.looked_at += 1
        numbers = _some(numbers)
        if not np.isfinite(numbers).all() or self.looked_at > _MOST_VALUES:
            return self._answer(False, "its origin is too involved to judge")
        node = value.producer()
        if node is None:
            what = "a constant" if constant_of(value) is not None else f"the input '{value.name}'"
            return self._unknown(what, numbers)
        if is_standard(node) and node.op_type in DATA_MOVEMENT | {"MaxPool", "GlobalMaxPool"}:
            return all(self.rare(source, numbers) for source in moved_inputs(node))
        rule = _RULES.get(node.op_type) if is_standard(node) else None
        return self._unknown(_called(node), numbers) if rule is None else rule(self, node, numbers)

    def _answer(self, rare: bool, why: str) -> bool:
        self.why = why
        return rare

    def _unknown(self, what: str, numbers: np.ndarray) -> bool:
        if numbers.size > 1 and not (numbers == np.rint(numbers)).any():
            return self._answer(True, f"{what} would have to equal a learned number")
        return self._answer(False, f"{what} may hold it exactly")

    def average(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """A mean of values: of integers it hits fractions, so ask as for the likeliest number, 0."""
        return self.rare(required_input(node), np.zeros(1))

    def leaky(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """PRelu and LeakyRelu: 0 stays 0, and a slope of 0 makes zeros, as Relu does."""
        alpha = np.array([node.attributes.get_float("alpha", 0.01)])
        slopes = constant_of(node.inputs[1]) if node.op_type == "PRelu" else alpha
        if slopes is None or not np.all(slopes):
            return self._unknown(_called(node), np.zeros(1))
        below = np.divide.outer(numbers, _some(slopes)).reshape(-1)
        return self.rare(required_input(node), np.concatenate([numbers, below]))

    def clip(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """A bound is hit exactly by everything beyond it."""
        bounds = [constant_of(value) for value in node.inputs[1:] if value is not None]
        if node.op_type == "Relu":
            bounds = [np.zeros(1)]
        if any(bound is None or np.isin(numbers, bound).any() for bound in bounds):
            return self._answer(False, f"{_called(node)} makes it of everything beyond a bound")
        return self.rare(required_input(node), numbers)

    def add(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """Add and Sub: of a constant, the numbers move; of two computed values, one that is rare suffices."""
        first, second = required_input(node), required_input(node, 1)
        for constant, other, place in ((second, first, 1), (first, second, 0)):
            array = constant_of(constant)
            if array is not None:
                vector = _some(array)
                # x + c == t, x - c == t and c - x == t.
                inverse = np.subtract if node.op_type == "Add" or place == 0 else np.add
                moved = inverse.outer(numbers, vector) * (-1 if node.op_type == "Sub" and place == 0 else 1)
                return self.rare(other, moved.reshape(-1))
        return self.rare(first, numbers) or self.rare(second, numbers)

    def scale(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """Mul and Div by a constant without zeros."""
        first, second = required_input(node), required_input(node, 1)
        array, other = constant_of(second), first
        if array is None and node.op_type == "Mul":
            array, other = constant_of(first), second
        factors = np.zeros(1) if array is None or not array.all() else _some(array)
        if not factors.all():
            return self._unknown(_called(node), np.zeros(1))
        function = np.multiply if node.op_type == "Div" else np.divide
        return self.rare(other, function.outer(numbers, factors).reshape(-1))

    def negate(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """Neg."""
        return self.rare(required_input(node), -numbers)

    def batch_normalization(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """``(x - mean) / sqrt(variance + epsilon) * scale + bias``; a channel of scale 0 is its bias everywhere."""
        arrays = [constant_of(node.inputs[index]) for index in range(1, 5)]
        if any(array is None for array in arrays) or len({array.shape for array in arrays if array is not None}) > 1:
            return self._unknown(_called(node), np.zeros(1))
        scale, bias, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
        live = scale != 0
        if np.isin(numbers, bias[~live]).any():
            return self._answer(False, f"{_called(node)} is it in a whole channel, whose scale is 0")
        steps = np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))[live] / scale[live]
        numbers = mean[live] + (numbers[:, None] - bias[live]) * steps
        rare = self.rare(required_input(node), numbers.reshape(-1))
        return self._answer(True, f"it comes from {_called(node)}") if rare else rare

    def normalisation(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """Statistics of the value itself make any exact number an accident, but where the scale is 0."""
        scale = constant_of(node.inputs[1])
        bias = optional_constant(node, 2, np.zeros(1))
        if scale is None or bias is None or bias.shape not in (scale.shape, (1,)):
            return self._unknown(_called(node), np.zeros(1))
        flat = np.broadcast_to(bias, scale.shape)[scale == 0]
        if np.isin(numbers, flat).any():
            return self._answer(False, f"{_called(node)} is it in a whole channel, whose scale is 0")
        return self._answer(True, f"it comes from {_called(node)}")

    def layer(self, node: ir.Node, numbers: np.ndarray) -> bool:
        """A layer of real weights: rare, unless all it reads is 0; of few-valued weights: whole multiples are likely."""
        place = next((index for index in (1, 0) if constant_of(node.inputs[index]) is not None), None)
        weights = None if place is None else constant_of(node.inputs[place])
        offsets = optional_constant(node, 2, np.zeros(1))
        factors = {node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
        if weights is None or place is None or offsets is None or weights.size == 0 or factors != {1.0}:
            return self._unknown(_called(node), np.zeros(1))
        numbers = np.subtract.outer(numbers, _some(offsets)).reshape(-1)
        channel = np.abs(_one_channel(node, weights, place).astype(np.float64))
        # Rounded, as ±a of a straight-through estimator differ in their last bits.
        sizes = np.unique((channel / (channel.max() or 1.0)).astype(np.float16)).size
        if sizes > 16 or (sizes > 2 and 2 * sizes > channel.size):
            if numbers.all() or self.rare(required_input(node, 1 - place), np.zeros(1)):
                return self._answer(True, f"it comes from {_called(node)}, whose weights are real numbers")
            return self._answer(False, f"{_called(node)} makes it of zeros ({self.why})")
        steps = _some(np.abs(weights))
        return self._unknown(_called(node), np.divide.outer(numbers, steps[steps > 0]).reshape(-1))


def _one_channel(node: ir.Node, weights: np.ndarray, place: int) -> np.ndarray:
    """The weights of the layer's first output channel."""
    if node.op_type == "Conv" or place == 0 or node.attributes.get_int("transB"):
        return weights[:1].reshape(-1)
    return (weights[:, :1] if node.op_type == "ConvTranspose" else weights[..., :1]).reshape(-1)


def _some(array: np.ndarray) -> np.ndarray:
    """The different numbers of an array, as float64; of many, the smallest integers and some others."""
    found = np.unique(array.astype(np.float64))
    if found.size <= _MOST_NUMBERS:
        return found
    integers = found[found == np.rint(found)]
    kept = integers[np.argsort(np.abs(integers))][: _MOST_NUMBERS // 2]
    others = found[np.linspace(0, found.size - 1, _MOST_NUMBERS // 2).astype(int)]
    return np.unique(np.concatenate([kept, others]))


def _called(node: ir.Node) -> str:
    return f"{node.op_type} '{layer_name(node)}'"


_RULES: dict[str, Callable[[_Walk, ir.Node, np.ndarray], bool]] = {
    **dict.fromkeys(("Add", "Sub"), _Walk.add),
    **dict.fromkeys(("Mul", "Div"), _Walk.scale),
    **dict.fromkeys(("Clip", "Relu"), _Walk.clip),
    **dict.fromkeys(("PRelu", "LeakyRelu"), _Walk.leaky),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), _Walk.average),
    **dict.fromkeys(_NORMALISATIONS, _Walk.normalisation),
    **dict.fromkeys(LAYERS, _Walk.layer),
    "BatchNormalization": _Walk.batch_normalization,
    "Neg": _Walk.negate,
}
