"""fold_constants: what depends on constants alone is computed at compile time, everything else stays."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.fold_constants import fold_constants
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, operators, per_channel

SHAPE = (2, 3)
A = np.arange(1.0, 7.0).reshape(SHAPE)

FOLDABLE = {
    "add": lambda: relax.op.add(constant(A), constant([1, 2, 3])),
    "subtract": lambda: relax.op.subtract(constant(A), constant(2)),
    "multiply": lambda: relax.op.multiply(constant(A), constant([[2], [3]])),
    "divide": lambda: relax.op.divide(constant(A), constant(4)),
    "negative": lambda: relax.op.negative(constant(A)),
    "reshape": lambda: relax.op.reshape(constant(A.reshape(3, 2)), SHAPE),
    "expand and squeeze": lambda: relax.op.squeeze(relax.op.expand_dims(constant(A), [0]), [0]),
    "permute_dims": lambda: relax.op.permute_dims(constant(A.reshape(3, 2)), [1, 0]),
    "reversed axes": lambda: relax.op.permute_dims(constant(A.reshape(3, 2))),
    "broadcast_to": lambda: relax.op.broadcast_to(constant([1, 2, 3]), SHAPE),
    "astype": lambda: relax.op.astype(constant(A, "int64"), "float32"),
    "ones_like": lambda: relax.op.ones_like(constant(A)),
    "scalars": lambda: relax.op.add(constant(A), relax.op.add(constant(1), constant(2))),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_constants_are_computed(name: str) -> None:
    """Breaks: a weight's transpose or reshape runs in every inference, or is computed wrongly."""
    before = build([SHAPE], lambda emit, x: relax.op.multiply(x, emit(FOLDABLE[name]())))
    after = fold_constants(before)
    assert operators(after) == ["relax.multiply"]
    if name != "astype" and name != "ones_like":
        np.testing.assert_array_equal(evaluate(after, A), evaluate(before, A))
    else:
        np.testing.assert_array_equal(evaluate(after, A), A * (A if name == "astype" else 1))


@pytest.mark.parametrize("name", FOLDABLE)
def test_type_of_the_result_is_kept(name: str) -> None:
    """Breaks: a folded scalar becomes a row, or a number another type."""
    before = build([SHAPE], lambda emit, x: relax.op.multiply(x, emit(FOLDABLE[name]())))
    types = {str(b.var.ty) for b in before["main"].body.blocks[0].bindings}
    folded = fold_constants(before)["main"].body.blocks[0].bindings[0].value.args[1]
    assert str(folded.ty) in types


def test_scalars_stay_scalars() -> None:
    """Breaks: two folded scalars become a row of one, and every type after it another one."""
    before = build([SHAPE], lambda emit, x: relax.op.multiply(emit(relax.op.add(constant(1), constant(2))), x))
    expected = build([SHAPE], lambda emit, x: relax.op.multiply(constant(3), x))
    tvm.ir.assert_structural_equal(fold_constants(before), expected)


def test_whole_numbers_are_not_divided_as_real_ones() -> None:
    """Breaks: 7 / 2 of int64 becomes 3.5, where the network computes 3."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        quotient = emit(relax.op.divide(constant([7, 8, 9], "int64"), constant([2], "int64")))
        return relax.op.add(x, emit(relax.op.astype(quotient, "float32")))

    before = build([SHAPE], body)
    tvm.ir.assert_structural_equal(fold_constants(before), before)


@pytest.mark.parametrize(
    "body",
    [
        lambda emit, x: relax.op.add(x, constant(A)),
        lambda emit, x: relax.op.ones_like(x),
        lambda emit, x: relax.op.add(x, emit(relax.op.exp(constant(A)))),
        lambda emit, x: relax.op.concat([x, constant(A)], axis=0),
    ],
    ids=["input", "shape of the input", "operator without an entry", "tuple with the input"],
)
def test_everything_else_is_left_alone(body: object) -> None:
    """Breaks: something that depends on the input is frozen at compile time."""
    before = build([SHAPE], body)
    tvm.ir.assert_structural_equal(fold_constants(before), before)


def test_chains_fold_to_one_constant() -> None:
    """Breaks: a folded constant is not seen as one by the operator after it."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        slope = emit(relax.op.multiply(emit(relax.op.reshape(constant([1, 2, 3]), (1, 3, 1, 1))), constant(2)))
        return relax.op.multiply(x, slope)

    image = (1, 3, 2, 2)
    expected = build([image], lambda emit, x: relax.op.multiply(x, per_channel([2, 4, 6])))
    tvm.ir.assert_structural_equal(fold_constants(build([image], body)), expected)
