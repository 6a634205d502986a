"""step_function: what is proved is what the graph's float32 arithmetic does, and nothing else is proved."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.activations.binarisation import binarisation_of
from bnn_deploy.passes.onnx.activations.elementwise import Interval
from bnn_deploy.passes.onnx.activations.expression import Expression, Operation, evaluate
from bnn_deploy.passes.onnx.activations.step_function import StepFunction, Unproved, prove
from tests.passes.onnx.activations.activation_models import (
    adversarial,
    before_layer,
    neighbours,
    run,
    standard,
    to_float,
)

F32 = np.float32
BELOW_ZERO = -float(np.nextafter(F32(0), F32(1)))


def expression(constants: list[float], *operations: tuple) -> Expression:
    """Operations are (operator, operand, ...); operand 0 is x, then come the constants; Cast takes its type last."""
    made = [Operation(o[0], o[1:2], o[2]) if o[0] == "Cast" else Operation(o[0], o[1:]) for o in operations]
    return Expression(tuple(("float32", F32(c).tobytes()) for c in constants), tuple(made))


def polynomial(mask: float) -> Expression:
    """Bi-Real's straight-through estimator, whose polynomial follows the sign of x if its first mask is x < -1."""
    return expression(
        [mask, 0, 1, 2, -1],
        *(("Sign", 0), ("Less", 0, 1), ("Less", 0, 2), ("Less", 0, 3)),  # 6 7 8 9
        *(("Cast", 7, "float32"), ("Cast", 8, "float32"), ("Cast", 9, "float32")),  # 10 11 12
        *(("Mul", 0, 0), ("Mul", 0, 4), ("Add", 13, 14), ("Neg", 0), ("Mul", 16, 0), ("Add", 17, 14)),  # 15, 18
        *(("Mul", 10, 5), ("Sub", 3, 10), ("Mul", 15, 20), ("Add", 19, 21)),  # 22
        *(("Mul", 22, 11), ("Sub", 3, 11), ("Mul", 18, 24), ("Add", 23, 25)),  # 26
        *(("Mul", 26, 12), ("Sub", 3, 12), ("Add", 27, 28), ("Sub", 6, 29), ("Add", 30, 29)),
    )


def test_sign() -> None:
    """Breaks if the three values of a sign, the floats between them or its truth at infinity are lost."""
    assert prove(expression([], ("Sign", 0))) == StepFunction((-1.0, 0.0, 1.0), (BELOW_ZERO, 0.0), True)


def test_polynomial_estimator() -> None:
    """Breaks if the published straight-through estimators are not proved, or claimed where they give NaN."""
    assert prove(polynomial(-1)) == StepFunction((-1.0, 0.0, 1.0), (BELOW_ZERO, 0.0), False)


def test_wrong_mask_is_declined() -> None:
    """Breaks if a polynomial of the wrong sign passes: x in (-3, -2) makes c > 0, and (-1 - c) + c wobbles."""
    assert isinstance(prove(polynomial(-3)), Unproved)


@pytest.mark.parametrize(
    ("constants", "operations", "words"),
    [
        ([], [("Sign", 0), ("Mul", 1, 0)], "many values"),
        ([], [("Relu", 0)], "many values"),
        ([-1e-30, 1e-30], [("Clip", 0, 1, 2)], "not be proved"),
        ([0.3], [("Sign", 0), ("Mul", 2, 1), ("Sub", 3, 0), ("Add", 4, 0)], "proved"),
        # 4x passes 2**24, where (1 - 4x) + 4x is no longer 1.
        ([4], [("Sign", 0), ("Mul", 0, 1), ("Sub", 2, 3), ("Add", 4, 3)], "proved"),
        ([1, 0], [("Div", 1, 0), ("Greater", 3, 2), ("Cast", 4, "float32")], "no finite value at 0"),
        ([], [("Sign", 0), ("Sub", 1, 0), ("Sub", 2, 0)], "values"),
        ([0], [("Greater", 0, 1)], "element type bool"),
        ([], [("Sign", 0), ("Cast", 1, "float64")], "element type float64"),
        ([0], [("Greater", 0, 1), ("Add", 2, 0)], "different element types"),
        ([], [("Div", 0, 0)], "no finite value"),
    ],
)
def test_declines(constants: list[float], operations: list[tuple], words: str) -> None:
    """Breaks if what is no step function (or not a finite float32 one) is called one, or the reason changes its subject."""
    found = prove(expression(constants, *operations))
    assert isinstance(found, Unproved)
    assert words in found.reason


def test_levels_are_counted() -> None:
    """Breaks if a 2-bit quantiser passes for binary, or its levels are miscounted."""
    found = prove(expression([0, 3, 0.3], ("Div", 0, 3), ("Round", 4), ("Clip", 5, 1, 2)))
    assert isinstance(found, StepFunction)
    assert found.values == (0.0, 1.0, 2.0, 3.0)
    assert binarisation_of(found) == "takes 4 values (2 bits)"


def test_a_step_between_any_two_floats_is_found() -> None:
    """Breaks if the search for a step loses the float at which it stands: 0.1 * x >= 0.3 in float32."""
    found = prove(expression([0.1, 0.3], ("Mul", 0, 1), ("GreaterOrEqual", 3, 2), ("Cast", 4, "float32")))
    assert isinstance(found, StepFunction)
    end = F32(found.ends[0])
    assert end * F32(0.1) < F32(0.3) <= np.nextafter(end, F32(9)) * F32(0.1)


FLOATS = st.floats(-(2.0**24), 2.0**24, width=32)


@settings(max_examples=300, deadline=None)
@given(FLOATS, st.sampled_from([-1.0, 0.0, 1.0]), st.integers(-100, 100))
def test_lemma(c: float, sign: float, power: int) -> None:
    """Breaks if the lemma of straight-through estimators is false for some float."""
    s = F32(sign) * F32(2) ** F32(power)
    c = F32(abs(c)) * F32(sign or 1) * F32(2) ** F32(power)
    assert (s - c) + c == s
    assert c - (c - s) == s


def test_lemma_at_the_edges() -> None:
    """Breaks if the lemma fails next to a power of two, at the limit 2**24 or among subnormals; or says too little of both."""
    c = neighbours([0, *(2.0**k for k in range(-149, 24)), 1.5, 3], 4)
    c = np.append(c[c >= 0], F32(2**24))
    for s in (F32(1), F32(-1)):
        np.testing.assert_array_equal((s - s * c) + s * c, np.full(c.shape, s))
    assert (F32(1) - F32(2**24 + 2)) + F32(2**24 + 2) != 1, "beyond the limit it is false"
    assert any((F32(1) - value) + value != 1 for value in -c), "it is false for the other sign"


UNARY = ("Abs", "Ceil", "Floor", "Neg", "Relu", "Round", "Sign")
BINARY = ("Add", "Div", "Max", "Min", "Mul", "Sub")
COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
NUMBERS = [-1.0, 0.0, 0.5, 1.0, 2.0, 0.1, 3.0]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Expression, list[onnx.NodeProto]]:
    """A random expression, twice: for the prover and as ONNX nodes from x to a. It ends in a step more often than not."""
    operations: list[Operation] = []
    nodes: list[onnx.NodeProto] = []
    floats = list(range(len(NUMBERS) + 1))
    names = ["x", *(f"c{index}" for index in range(len(NUMBERS)))]

    def emit(operator: str, *operands: int, target: str = "") -> int:
        inputs, output = " ".join(names[operand] for operand in operands), f"v{len(names)}"
        nodes.append(to_float(inputs, output) if target else standard(operator, inputs, output))
        operations.append(Operation(operator, operands, target))
        names.append(output)
        return len(names) - 1

    def operand() -> int:
        return draw(st.one_of(st.just(0), st.just(floats[-1]), st.sampled_from(floats)))

    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["unary", "binary", "clip", "mask", "where", "estimator"]))
        if kind == "unary":
            floats.append(emit(draw(st.sampled_from(UNARY)), operand()))
        elif kind == "binary":
            floats.append(emit(draw(st.sampled_from(BINARY)), operand(), operand()))
        elif kind == "clip":
            floats.append(emit("Clip", operand(), 1, 4))
        elif kind == "estimator":
            step, smooth = operand(), operand()
            floats.append(emit("Add", emit("Sub", step, smooth), smooth))
        else:
            truth = emit(draw(st.sampled_from(COMPARING)), operand(), operand())
            truth = emit("Not", truth) if draw(st.booleans()) else truth
            if kind == "mask":
                floats.append(emit("Cast", truth, target="float32"))
            else:
                floats.append(emit("Where", truth, operand(), operand()))
    if draw(st.booleans()):
        emit(draw(st.sampled_from(["Sign", "Round", "Relu"])), floats[-1])
    # Plus 0 * x, so that the result has the shape of x whatever was drawn, and the name that the model expects.
    result = len(names) - 1
    nothing = emit("Mul", 0, 2)
    nodes.append(standard("Add", f"{names[result]} {names[nothing]}", "a"))
    operations.append(Operation("Add", (result, nothing)))
    return Expression(tuple(("float32", F32(number).tobytes()) for number in NUMBERS), tuple(operations)), nodes


@settings(max_examples=120, deadline=None)
@given(programs())
def test_what_is_proved_is_what_onnxruntime_computes(program: tuple[Expression, list[onnx.NodeProto]]) -> None:
    """Breaks if the interval arithmetic is unsound anywhere, or differs from what a runtime computes."""
    proof = prove(program[0])
    if isinstance(proof, Unproved):
        return
    x = adversarial([*proof.ends[:20], *(-end for end in proof.ends[:20])])
    x = x[np.abs(x) <= 2**24].reshape(1, -1, 1)
    network = before_layer(program[1], {f"c{index}": number for index, number in enumerate(NUMBERS)})
    expected = np.array(proof.values, F32)[np.searchsorted(np.array(proof.ends, F32), x, side="left")]
    np.testing.assert_array_equal(run(network, x), expected)


@settings(max_examples=120, deadline=None)
@given(programs(), FLOATS, FLOATS, st.lists(st.floats(0, 1), min_size=5, max_size=20))
def test_bounds_hold(program: tuple[Expression, list], one: float, other: float, places: list[float]) -> None:
    """Breaks if some value in a range lies outside the bounds computed for the range."""
    low, high = F32(min(one, other)), F32(max(one, other))
    bounds = evaluate(program[0], Interval(np.array([low]), np.array([high]), np.zeros(1, bool)))
    inside = np.clip((low + (high - low) * np.array(places)).astype(F32), low, high)
    points = np.concatenate([inside, [low, high]]).astype(F32)
    exact = evaluate(program[0], Interval(points, points, np.zeros(points.shape, bool)))
    known = exact.exact & ~bounds.undefined
    assert (exact.low[known] >= bounds.low).all()
    assert (exact.low[known] <= bounds.high).all()
    if not bounds.undefined[0]:
        assert not exact.undefined.any()
