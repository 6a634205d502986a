"""merge_layers: concatenated layers become one, channel by channel the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.merge_layers import merge_layers
from tests.passes.evaluate import evaluate
from tests.passes.networks import build, constant, convolution, geometry, operators

SHAPE = (2, 3, 4, 32)
POINTWISE = geometry(32, channels_last=1)
SQUARE = geometry(32, (3, 3), pads=(1, 1, 1, 1), channels_last=1)


def words_of(emit: Callable, x: relax.Expr) -> relax.Var:
    return emit(call("bnn.sign_pack", [x, constant([0.5])], {"zero": -1}))


def layer(emit: Callable, words: relax.Expr, seed: int, attributes: object = POINTWISE, name: str = "") -> relax.Var:
    scale, shift = np.arange(32.0) - seed, np.arange(32.0) * seed
    return emit(convolution(words, 32, attributes, scale, shift, name="bnn.packed_conv2d", seed=seed), name)


@pytest.mark.parametrize("attributes", [POINTWISE, SQUARE], ids=["1x1", "3x3"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shortcut", ["none", "left", "right"])
def test_concatenated_layers_become_one(attributes: object, count: int, shortcut: str) -> None:
    """Breaks: channels of one layer get another one's weights, scale, shift or shortcut."""

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        words = words_of(emit, x)
        layers = [layer(emit, words, seed, attributes) for seed in range(count)]
        if shortcut != "none":
            pairs = [(y, x) if shortcut == "left" else (x, y) for y in layers]
            layers = [emit(relax.op.add(*pair)) for pair in pairs]
        return relax.op.concat(layers, axis=3)

    before = build([SHAPE], body)
    after = merge_layers(before)
    assert operators(after).count("bnn.packed_conv2d") == 1
    x = np.random.default_rng(0).integers(-3, 4, SHAPE)
    np.testing.assert_array_equal(evaluate(after, x), evaluate(before, x))


def test_the_name_tells_both_layers() -> None:
    """Breaks: profile shows the time of two layers under the name of one."""
    names = {"down1": "block.down1", "down2": "block.down2"}

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        words = words_of(emit, x)
        return relax.op.concat([layer(emit, words, 1, name="down1"), layer(emit, words, 2, name="down2")], axis=3)

    found = merge_layers(build([SHAPE], body, names)).attrs["layer_names"].values()
    assert "block.down1 + block.down2" in [str(name) for name in found]


def different_words(emit: Callable, x: relax.Expr) -> relax.Expr:
    other = words_of(emit, emit(relax.op.negative(x)))
    return relax.op.concat([layer(emit, words_of(emit, x), 1), layer(emit, other, 2)], axis=3)


def different_geometry(emit: Callable, x: relax.Expr) -> relax.Expr:
    words = words_of(emit, x)
    return relax.op.concat([layer(emit, words, 1), layer(emit, words, 2, SQUARE)], axis=3)


def different_shortcuts(emit: Callable, x: relax.Expr) -> relax.Expr:
    words, other = words_of(emit, x), emit(relax.op.negative(x))
    sums = [emit(relax.op.add(layer(emit, words, 1), x)), emit(relax.op.add(layer(emit, words, 2), other))]
    return relax.op.concat(sums, axis=3)


def read_elsewhere(emit: Callable, x: relax.Expr) -> relax.Expr:
    words = words_of(emit, x)
    layers = [layer(emit, words, 1), layer(emit, words, 2)]
    return relax.op.concat([emit(relax.op.concat(layers, axis=3)), layers[0]], axis=3)


def other_axis(emit: Callable, x: relax.Expr) -> relax.Expr:
    words = words_of(emit, x)
    return relax.op.concat([layer(emit, words, 1), layer(emit, words, 2)], axis=1)


@pytest.mark.parametrize("body", [different_words, different_geometry, different_shortcuts, read_elsewhere, other_axis])
def test_others_stay(body: Callable) -> None:
    """Breaks: layers that do not compute side by side are taken for one."""
    assert operators(merge_layers(build([SHAPE], body))).count("bnn.packed_conv2d") == 2
