"""merge_packs: all constant thresholds of one tensor in one operator, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.lower_binary import lower_binary
from bnn_deploy.passes.relax.merge_packs import merge_packs
from bnn_deploy.targets.registry import host_target
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, convolution, geometry, operators

SHAPE = (2, 3, 4, 40)
LAYER = geometry(40, channels_last=1)
TERNARY = geometry(40, channels_last=1, ternary=1)


def signs(emit: object, x: relax.Expr, threshold: object, zero: int = -1) -> relax.Var:
    bound = threshold if isinstance(threshold, relax.Expr) else constant(threshold)
    return emit(call("bnn.sign_pack", [x, bound], {"zero": zero}), f"sign{zero}")


def summed(emit: object, words: list[relax.Var], attributes: object = LAYER) -> relax.Var:
    layers = [emit(convolution(w, 8, attributes, seed=i, name="bnn.packed_conv2d")) for i, w in enumerate(words)]
    total = layers[0]
    for layer in layers[1:]:
        total = emit(relax.op.add(total, layer))
    return total


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(-3, 4, SHAPE) / 2


@pytest.mark.parametrize("zero", [-1, 0, 1])
def test_thresholds_of_one_tensor_are_merged(zero: int) -> None:
    """Breaks: a plane gets the threshold of another one, or the sign at its threshold is lost."""
    vector = np.linspace(-1, 1, 40).reshape(1, 1, 1, 40).round(1)

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        words = [signs(emit, x, threshold, zero) for threshold in ([0.5], vector, -0.5)]
        return summed(emit, words, LAYER if zero else TERNARY)

    before = build([SHAPE], body)
    after = merge_packs(before)
    assert operators(after).count("bnn.sign_pack_many") == 1
    assert "bnn.sign_pack" not in operators(after)
    np.testing.assert_array_equal(evaluate(after, image()), evaluate(before, image()))


def test_biases_of_three_valued_signs_are_merged() -> None:
    """Breaks: a bias is lost, or added twice where a shortcut needs the sum as well."""
    biases = [constant(np.full((1, 1, 1, 40), value)) for value in (0.5, -1.0)]

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        sums = [emit(relax.op.add(x, biases[0])), emit(relax.op.add(biases[1], x))]
        words = [emit(call("bnn.ternary_pack", [value])) for value in sums]
        return relax.op.add(summed(emit, words, TERNARY), emit(relax.op.mean(sums[0], [3], keepdims=True)))

    before = build([SHAPE], body)
    after = merge_packs(before)
    assert operators(after).count("bnn.ternary_pack_many") == 1 and operators(after).count("bnn.ternary_pack") == 0
    assert operators(after).count("relax.add") == operators(before).count("relax.add") - 1
    np.testing.assert_array_equal(evaluate(after, image()), evaluate(before, image()))


def test_one_bias_disappears_into_its_sign() -> None:
    """Breaks: a tuple of one plane cannot be lowered to a kernel call."""

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        words = emit(call("bnn.ternary_pack", [emit(relax.op.add(x, constant([0.5])))]))
        return summed(emit, [words], TERNARY)

    after = merge_packs(build([SHAPE], body))
    assert "relax.add" not in operators(after)
    assert operators(lower_binary(after, host_target())).count("relax.call_tir") == 2


def test_others_stay() -> None:
    """Breaks: thresholds that are computed, other tensors, or other conventions at zero are merged."""

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        y = emit(relax.op.multiply(x, constant([2.0])))
        mean = emit(relax.op.mean(x, [1, 2], keepdims=True))
        words = [signs(emit, x, [0.5]), signs(emit, y, [0.5]), signs(emit, x, [0.5], 1), signs(emit, x, mean)]
        three = [signs(emit, x, [0.5], 0), emit(call("bnn.ternary_pack", [x]))]
        return relax.op.add(summed(emit, words), summed(emit, three, TERNARY))

    before = build([SHAPE], body)
    assert operators(merge_packs(before)) == operators(before)
    assert operators(before).count("bnn.sign_pack") == 5


def test_reports_name_every_layer() -> None:
    """Breaks: profile shows the time of five signs under the name of the first."""

    def body(emit: object, x: relax.Expr) -> relax.Expr:
        words = [
            emit(call("bnn.sign_pack", [x, constant([t])], {"zero": -1}), f"sign_{i}") for i, t in enumerate((0.5, 1.0))
        ]
        return summed(emit, words)

    module = merge_packs(build([SHAPE], body, {"sign_0": "block.sign0", "sign_1": "block.sign1"}))
    calls = [b.value for b in lower_binary(module, host_target())["main"].body.blocks[0].bindings]
    layers = [str(value.attrs["layer"]) for value in calls if isinstance(value, relax.Call) and value.attrs is not None]
    assert layers[0] == "block.sign0 + block.sign1"
