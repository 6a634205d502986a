"""pack: signs become words, and words are moved instead of floats wherever no word is cut."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.errors import CompileError
from bnn_deploy.passes.relax.expressions import main_bindings
from bnn_deploy.passes.relax.pack import pack
from tests.passes.evaluate import evaluate
from tests.passes.networks import (
    build,
    constant,
    convolution,
    geometry,
    linear,
    operators,
    roll,
    sign,
    take,
    ternary,
)

EVERYTHING = 2**63 - 1
# What makes words -> (float operator, its pack, whether it has three values)
KINDS = {
    "sign": (lambda x: sign(x), "bnn.sign_pack", False),
    "ternary": (lambda x: ternary(x), "bnn.ternary_pack", True),
    "sign that is 0 at its threshold": (lambda x: sign(x, 0.5, 0), "bnn.sign_pack", True),
}


def image(channels: int) -> tuple[int, ...]:
    return (1, 4, 5, channels)


def sign_pack(x: relax.Expr, threshold: object = 0.0, zero: int = -1) -> relax.Call:
    bound = threshold if isinstance(threshold, relax.Expr) else constant(threshold)
    return call("bnn.sign_pack", [x, bound], {"zero": zero})


def packed_layer(words: relax.Expr, channels: int, three: int = 0) -> relax.Call:
    attributes = geometry(channels, (3, 1), pads=(1, 0, 1, 0), channels_last=1, ternary=three)
    return convolution(words, 2, attributes, name="bnn.packed_conv2d")


def float_layer(x: relax.Expr, channels: int) -> relax.Call:
    return convolution(x, 2, geometry(channels, (3, 1), pads=(1, 0, 1, 0), channels_last=1))


@pytest.mark.parametrize("zero", [-1, 1])
def test_sign_and_layer_become_words(zero: int) -> None:
    """Breaks: binary layers run on floats, or the sign at zero and its threshold are lost on the way."""
    threshold = constant(np.arange(48.0).reshape(1, 1, 1, 48))
    before = build([image(48)], lambda emit, x: float_layer(emit(sign(x, threshold, zero)), 48))
    expected = build([image(48)], lambda emit, x: packed_layer(emit(sign_pack(x, threshold, zero)), 48))
    tvm.ir.assert_structural_equal(pack(before), expected)


def test_sign_of_three_values_and_layer_become_two_planes() -> None:
    """Breaks: the zeros of a sign become -1 or +1, or the layer reads one plane."""
    threshold = constant(np.arange(48.0).reshape(1, 1, 1, 48))
    before = build([image(48)], lambda emit, x: float_layer(emit(sign(x, threshold, 0)), 48))
    expected = build([image(48)], lambda emit, x: packed_layer(emit(sign_pack(x, threshold, 0)), 48, three=1))
    tvm.ir.assert_structural_equal(pack(before), expected)
    assert [int(extent) for extent in main_bindings(expected["main"])[0].var.ty.shape.values] == [1, 4, 2, 5, 2]


def test_ternary_and_layer_become_two_planes() -> None:
    """Breaks: the layer reads one plane of three-valued words."""
    before = build([image(48)], lambda emit, x: float_layer(emit(ternary(x)), 48))
    expected = build([image(48)], lambda emit, x: packed_layer(emit(call("bnn.ternary_pack", [x])), 48, three=1))
    tvm.ir.assert_structural_equal(pack(before), expected)


@pytest.mark.parametrize("three", [0, 1])
def test_linear_layers_read_words_too(three: int) -> None:
    """Breaks: binary linear layers are forgotten."""
    signs, words = (ternary, lambda x: call("bnn.ternary_pack", [x])) if three else (sign, sign_pack)
    before = build([(3, 48)], lambda emit, x: linear(emit(signs(x)), 48, 5))
    expected = build([(3, 48)], lambda emit, x: linear(emit(words(x)), 48, 5, name="bnn.packed_linear", ternary=three))
    tvm.ir.assert_structural_equal(pack(before), expected)


def test_a_sign_read_twice_is_packed_once() -> None:
    """Breaks: two branches of a block each compare and pack the same image."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        s = emit(sign(x))
        return relax.op.add(emit(float_layer(s, 48)), emit(float_layer(s, 48)))

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        s = emit(sign_pack(x))
        return relax.op.add(emit(packed_layer(s, 48)), emit(packed_layer(s, 48)))

    tvm.ir.assert_structural_equal(pack(build([image(48)], before)), build([image(48)], expected))


def test_a_float_reader_keeps_the_float_sign() -> None:
    """Breaks: an addition reads words as numbers."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        s = emit(sign(x))
        return relax.op.add(emit(relax.op.mean(s, axis=[3], keepdims=True)), emit(float_layer(s, 48)))

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        s = emit(sign(x))
        m = emit(relax.op.mean(s, axis=[3], keepdims=True))
        return relax.op.add(m, emit(packed_layer(emit(sign_pack(x)), 48)))

    tvm.ir.assert_structural_equal(pack(build([image(48)], before)), build([image(48)], expected))


def test_nothing_to_pack_is_left_alone() -> None:
    """Breaks: a sign without a binary layer becomes words that nobody can read."""
    before = build([image(48)], lambda emit, x: relax.op.add(x, sign(x)))
    tvm.ir.assert_structural_equal(pack(before), before)


# Movement of float signs with 64 channels -> the same movement of words, in channels-last axes.
WORD_MOVES = {
    "roll over rows": (lambda s: roll(s, 1, 1, 4), lambda w: roll(w, 1, 1, 4)),
    "stride over columns": (lambda s: take(s, 2, 0, 5, 2), lambda w: take(w, 2, 0, 5, 2)),
    "reversal of columns": (lambda s: take(s, 2, -1, -EVERYTHING, -1), lambda w: take(w, 2, -1, -EVERYTHING, -1)),
    "second half of channels": (lambda s: take(s, 3, 32, 64), lambda w: take(w, 3, 1, 2)),
    "last 32 channels": (lambda s: take(s, 3, -32, EVERYTHING), lambda w: take(w, 3, 1, 2)),
    "all but the last 32": (lambda s: take(s, -1, 0, -32), lambda w: take(w, 3, 0, 1)),
    "channels doubled": (lambda s: relax.op.concat([s, s], axis=-1), lambda w: relax.op.concat([w, w], axis=3)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORD_MOVES)
def test_words_are_moved(name: str, kind: str) -> None:
    """Breaks: rolls and splits of BiMLP move 32 times the bytes, or the wrong words or planes."""
    of_floats, _ = WORD_MOVES[name]
    signs, words, _ = KINDS[kind]

    def body(emit: object, x: relax.Var) -> relax.Expr:
        moved = emit(of_floats(emit(signs(x))))
        return float_layer(moved, int(moved.ty.shape.values[-1]))

    before = build([image(64)], body)
    after = pack(before)
    assert "bnn.sign" not in operators(after) and "bnn.ternary" not in operators(after)
    assert operators(after)[0] == words
    assert_same_function(before, after)


@pytest.mark.parametrize("name", WORD_MOVES)
def test_moved_words_are_the_expected_ones(name: str) -> None:
    """Breaks: word offsets are rounded wrongly although the function happens to agree."""
    of_floats, of_words = WORD_MOVES[name]

    def before(emit: object, x: relax.Var) -> relax.Expr:
        moved = emit(of_floats(emit(sign(x))))
        return float_layer(moved, int(moved.ty.shape.values[-1]))

    def expected(emit: object, x: relax.Var) -> relax.Expr:
        moved = emit(of_words(emit(sign_pack(x))))
        return packed_layer(moved, 32 * int(moved.ty.shape.values[-1]))

    if name.startswith("roll"):  # the two halves of a roll are emitted in another order
        assert operators(pack(build([image(64)], before))) == operators(build([image(64)], expected))
    else:
        tvm.ir.assert_structural_equal(pack(build([image(64)], before)), build([image(64)], expected))


@pytest.mark.parametrize("kind", [kind for kind, (_, _, three) in KINDS.items() if three])
@pytest.mark.parametrize(
    "shape", [(3, 64), (2, 3, 64), (2, 3, 4, 64), (2, 2, 3, 2, 64)], ids=lambda shape: f"rank {len(shape)}"
)
def test_three_valued_words_of_any_rank_are_moved(shape: tuple[int, ...], kind: str) -> None:
    """Breaks: an axis before or after that of the planes is taken for another one."""
    signs, packed, _ = KINDS[kind]

    def body(emit: object, x: relax.Var) -> relax.Expr:
        words = emit(signs(x))
        for axis in range(len(shape) - 1):
            words = emit(roll(words, axis, 1, shape[axis]))
        return linear(emit(take(words, -1, 32, 64)), 32, 5)

    before = build([shape], body)
    after = pack(before)
    assert not {"bnn.ternary", "bnn.sign"} & set(operators(after)) and operators(after)[0] == packed
    assert_same_function(before, after)


def test_halves_of_a_split_are_words() -> None:
    """Breaks: BCDNet's channel split packs each half again."""

    def before(emit: object, x: relax.Var) -> relax.Expr:
        parts = emit(relax.op.split(emit(sign(x)), 2, axis=3))
        layers = [emit(float_layer(emit(relax.TupleGetItem(parts, i)), 32)) for i in range(2)]
        return relax.op.add(*layers)

    module = build([image(64)], before)
    after = pack(module)
    assert operators(after).count("bnn.sign_pack") == 1 and "bnn.sign" not in operators(after)
    assert_same_function(module, after)


# (channels, movement) that cuts words, or that words cannot follow.
CUTS = {
    "slice inside a word": (64, lambda s: take(s, 3, 0, 40)),
    "slice that starts inside a word": (64, lambda s: take(s, 3, 8, 40)),
    "slice along an axis counted from the end": (64, lambda s: take(s, -1, 8, 40)),
    "negative begin inside a word": (48, lambda s: take(s, 3, -32, EVERYTHING)),
    "negative end inside a word": (48, lambda s: take(s, 3, 0, -32)),
    "every other channel": (64, lambda s: take(s, 3, 0, 64, 2)),
    "reversal of channels": (64, lambda s: take(s, 3, -1, -EVERYTHING, -1)),
    "concat of part words": (12, lambda s: relax.op.concat([s, s], axis=3)),
    "roll over channels": (12, lambda s: roll(s, 3, 5, 12)),
    "flatten": (12, lambda s: relax.op.reshape(s, (1, 1, 4, 60))),
    "transpose": (12, lambda s: relax.op.permute_dims(s, [0, 2, 1, 3])),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CUTS)
def test_where_a_word_would_be_cut_floats_are_moved(name: str, kind: str) -> None:
    """Breaks: channels end up at other bits of their word, or zeros become -1."""
    channels, movement = CUTS[name]
    signs, _, three = KINDS[kind]

    def body(emit: object, x: relax.Var) -> relax.Expr:
        moved = emit(movement(emit(signs(x))))
        return float_layer(moved, int(moved.ty.shape.values[-1]))

    before = build([image(channels)], body)
    after = pack(before)
    assert operators(after)[0] == ("bnn.ternary" if kind == "ternary" else "bnn.sign")
    assert operators(after)[-2:] == ["bnn.ternary_pack" if three else "bnn.sign_pack", "bnn.packed_conv2d"]
    assert_same_function(before, after)


@pytest.mark.parametrize(("begin", "end"), [(32, 48), (32, EVERYTHING), (0, 32), (-16, EVERYTHING), (32, 100)], ids=str)
def test_slices_up_to_a_part_word_keep_it(begin: int, end: int) -> None:
    """Breaks: the last, partly filled word of 48 channels is dropped from a slice."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        moved = emit(take(emit(sign(x)), 3, begin, end))
        return float_layer(moved, int(moved.ty.shape.values[-1]))

    before = build([image(48)], body)
    after = pack(before)
    assert "bnn.sign" not in operators(after)
    assert_same_function(before, after)


@pytest.mark.parametrize("channels", [12, 32])
@pytest.mark.parametrize("kind", [kind for kind, (_, _, three) in KINDS.items() if three])
def test_signs_and_three_values_concatenate(channels: int, kind: str) -> None:
    """Breaks: one plane is concatenated with two, or the zeros of the three-valued half are lost."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        both = emit(relax.op.concat([emit(sign(x)), emit(KINDS[kind][0](x))], axis=3))
        return float_layer(both, 2 * channels)

    before = build([image(channels)], body)
    after = pack(before)
    assert operators(after)[-2:] == ["bnn.ternary_pack", "bnn.packed_conv2d"]
    assert_same_function(before, after)


@pytest.mark.parametrize("channels", [12, 32])
@pytest.mark.parametrize("source", ["relax.nn.relu", "the network input", "relax.concat"])
def test_what_is_not_made_of_signs_is_refused(source: str, channels: int) -> None:
    """Breaks: real values are silently binarised, and the compiled network computes something else."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        values = x
        if source != "the network input":
            values = emit(relax.op.nn.relu(x))
        if source == "relax.concat":
            values = emit(relax.op.concat([emit(sign(x)), values], axis=3))
        return emit(float_layer(values, int(values.ty.shape.values[-1])), "block_2")

    before = build([image(channels)], body, {"block_2": "block.2.conv"})
    culprit = "relax.nn.relu" if source == "relax.concat" else source
    with pytest.raises(CompileError, match=f"Layer 'block.2.conv' .*comes from '{culprit}'"):
        pack(before)


def assert_same_function(before: tvm.IRModule, after: tvm.IRModule) -> None:
    """Equal for random inputs; binary layers with scale 1 give whole numbers, so exactly."""
    shape = [int(extent) for extent in before["main"].params[0].ty.shape.values]
    x = np.random.default_rng(0).integers(-2, 3, shape) / 2.0
    expected = evaluate(before, x)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(evaluate(after, x), expected)
