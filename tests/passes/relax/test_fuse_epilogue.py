"""fuse_epilogue: what follows a binary layer is computed by the layer's kernel, and is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.pipeline import lower_packed
from bnn_deploy.passes.relax.fuse_epilogue import fuse_epilogue
from bnn_deploy.passes.relax.merge_packs import merge_packs
from bnn_deploy.targets.registry import get_target, host_target, missing_cpu_flags
from tests.passes.evaluate import evaluate
from tests.passes.execute import run_plan
from tests.passes.networks import build, constant, convolution, geometry, operators

CHANNELS = 64
SHAPE = (2, 4, 7, CHANNELS)
POINTWISE = geometry(CHANNELS, channels_last=1)
SQUARE = geometry(CHANNELS, (3, 3), pads=(1, 1, 1, 1), channels_last=1)
# Kernels with AVX-512 pack signs in their epilogues, those of x86-64-v3 do not. Any target can be compiled for here.
AVX512, AVX2 = get_target("x86-64-v4-vpopcntdq"), get_target("x86-64-v3")
RUNNABLE = [t for t in (AVX512, get_target("x86-64-v4"), AVX2) if not missing_cpu_flags(t)]


def pack(emit: Callable, x: relax.Expr, threshold: object = 0.5, zero: int = -1) -> relax.Var:
    return emit(call("bnn.sign_pack", [x, constant([threshold])], {"zero": zero}))


def layer(
    emit: Callable, words: relax.Expr, attributes: object = POINTWISE, outputs: int = CHANNELS, seed: int = 0
) -> relax.Var:
    scale, shift = np.arange(outputs) % 5 - 2, np.arange(outputs) % 3
    return emit(convolution(words, outputs, attributes, scale, shift, name="bnn.packed_conv2d", seed=seed))


def vector(channels: int = CHANNELS, seed: int = 0) -> relax.Expr:
    return constant(np.random.default_rng(seed).integers(-4, 5, (1, 1, 1, channels)) / 2)


def prelu(emit: Callable, x: relax.Expr, channels: int = CHANNELS, seed: int = 1) -> relax.Var:
    return emit(relax.op.nn.prelu(x, constant(np.random.default_rng(seed).integers(-2, 3, channels) / 2), axis=3))


def residual(emit: Callable, x: relax.Expr) -> relax.Expr:
    """A ReActNet layer and the next one: the float result is read by both."""
    y = emit(relax.op.add(emit(relax.op.add(layer(emit, pack(emit, x), SQUARE), x)), vector()))
    a = emit(relax.op.add(prelu(emit, y), vector(seed=2)))
    return relax.op.add(layer(emit, pack(emit, a), seed=3), a)


def three_branches(emit: Callable, x: relax.Expr) -> relax.Expr:
    """A ShiftBlock: one kernel adds what two others have stored."""
    words = pack(emit, x)
    branches = [layer(emit, words, seed=i) for i in range(3)]
    total = emit(relax.op.add(emit(relax.op.add(branches[0], branches[1])), branches[2]))
    return relax.op.add(emit(relax.op.multiply(total, vector())), x)


def tiled_shortcut(emit: Callable, x: relax.Expr) -> relax.Expr:
    """BiMLP's first layer: four times the channels, the shortcut tiled, with its own PReLU."""
    wide = 4 * CHANNELS
    tiled = emit(relax.op.concat([x, x, x, x], axis=3))
    shortcut = prelu(emit, emit(relax.op.multiply(tiled, vector(wide))), wide)
    return relax.op.add(layer(emit, pack(emit, x), outputs=wide), shortcut)


def averaged_shortcut(emit: Callable, x: relax.Expr) -> relax.Expr:
    """BiMLP's second layer: fewer channels, the shortcut is the mean of chunks."""
    half = CHANNELS // 2
    parts = [emit(relax.op.strided_slice(x, [3], [b], [b + half], [1])) for b in (0, half)]
    mean = emit(relax.op.multiply(emit(relax.op.add(*parts)), constant([0.5])))
    return relax.op.add(layer(emit, pack(emit, x), outputs=half), mean)


def many_signs(emit: Callable, x: relax.Expr) -> relax.Expr:
    """Three signs of one result, of which no float is read."""
    y = emit(relax.op.maximum(emit(relax.op.subtract(layer(emit, pack(emit, x)), x)), vector()))
    words = [pack(emit, y, threshold) for threshold in (0.5, -1.0, 2.0)]
    layers = [layer(emit, w, seed=i) for i, w in enumerate(words)]
    return relax.op.add(emit(relax.op.add(layers[0], layers[1])), layers[2])


def signs_of_both_kinds(emit: Callable, x: relax.Expr) -> relax.Expr:
    """Signs of two and of three values of one result, the latter first."""
    y = emit(relax.op.add(layer(emit, pack(emit, x)), x))
    three = layer(emit, pack(emit, y, 1.0, 0), geometry(CHANNELS, ternary=1, channels_last=1))
    return relax.op.add(three, layer(emit, pack(emit, y, 1.0)))


def one_number_per_pixel(emit: Callable, x: relax.Expr) -> relax.Expr:
    """XNOR-Net's K, and a spatial attention: an image of one channel beside one of many."""
    gate = emit(relax.op.max(x, [3], keepdims=True))
    return relax.op.multiply(layer(emit, pack(emit, x), SQUARE), gate)


def one_number_per_channel_of_an_image(emit: Callable, x: relax.Expr) -> relax.Expr:
    """Squeeze-and-excite."""
    gate = emit(relax.op.max(x, [1, 2], keepdims=True))
    return relax.op.multiply(layer(emit, pack(emit, x), SQUARE), gate)


NETWORKS = [
    *(residual, three_branches, tiled_shortcut, averaged_shortcut, many_signs, signs_of_both_kinds),
    *(one_number_per_pixel, one_number_per_channel_of_an_image),
]


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda target: target.name)
@pytest.mark.parametrize("body", NETWORKS, ids=lambda body: body.__name__)
def test_kernels_compute_what_follows(body: Callable, target: object, tmp_path: Path) -> None:
    """Breaks: a step, operand or threshold of an epilogue is another one's, or a channel is read in the wrong place."""
    module = build([SHAPE], body)
    x = np.random.default_rng(0).integers(-6, 7, SHAPE).astype("float32")
    lowered = lower_packed(module, target)
    # Halves of whole numbers: exact in float32 in any order.
    np.testing.assert_array_equal(run_plan(lowered, target, x, tmp_path), evaluate(module, x))


def kinds(body: Callable, target: object = AVX512) -> list[str]:
    return [step.kind for step in lower_packed(build([SHAPE], body), target).plan.steps]


def test_nothing_stands_between_two_layers() -> None:
    """Breaks: floats between binary layers are written, read and written again by kernels of their own."""
    assert kinds(residual) == ["pack", "binary", "binary"]
    assert kinds(many_signs) == ["pack", "binary", "binary", "binary", "binary"]
    # Three values are packed by a kernel of their own, from floats that are stored for it.
    assert sorted(kinds(signs_of_both_kinds)) == ["binary", "binary", "binary", "pack", "pack"]
    # AVX2's tile has 8 channels, a quarter of a word.
    assert kinds(residual, AVX2) == ["pack", "binary", "pack", "binary"]


def test_shortcuts_are_read_in_place() -> None:
    """Breaks: a tiled or cut shortcut is copied before it is added."""
    assert kinds(tiled_shortcut) == kinds(averaged_shortcut) == ["pack", "binary"]
    assert kinds(three_branches) == ["pack", "binary", "binary", "binary"]


def test_what_others_read_stays() -> None:
    """Breaks: a value that another operator reads disappears into a kernel."""

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        y = layer(emit, pack(emit, x))
        z = emit(relax.op.add(y, x))
        return relax.op.multiply(z, emit(relax.op.cos(y)))

    after = fuse_epilogue(build([SHAPE], body), AVX512)
    assert "bnn.epilogue_conv2d" not in operators(after)


def test_layers_are_named() -> None:
    """Breaks: profile and validate lose the layers that a kernel has taken in."""

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        y = emit(convolution(pack(emit, x), CHANNELS, POINTWISE, name="bnn.packed_conv2d"), "conv")
        z = emit(relax.op.add(y, x), "add")
        return convolution(
            emit(call("bnn.sign_pack", [z, constant([0.5])], {"zero": -1}), "sign"),
            8,
            POINTWISE,
            name="bnn.packed_conv2d",
        )

    names = {"conv": "block.conv", "add": "block.add", "sign": "next.sign"}
    module = fuse_epilogue(merge_packs(build([SHAPE], body, names)), AVX512)
    fused = [b.value for b in module["main"].body.blocks[0].bindings if getattr(b.value, "op", None) is not None]
    layers = [str(v.attrs["layers"]) for v in fused if isinstance(v, relax.Call) and v.op.name == "bnn.epilogue_conv2d"]
    assert layers == ["block.conv + block.add + next.sign"]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_epilogues(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks: some order of steps, operands, outputs and sizes is computed wrongly."""
    height, width, outputs = (
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(1, 9)),
        data.draw(st.sampled_from([24, 32, 96])),
    )

    def body(emit: Callable, x: relax.Expr) -> relax.Expr:
        words = pack(emit, x)
        side = layer(emit, words, outputs=outputs, seed=9)
        value = layer(emit, words, data.draw(st.sampled_from([POINTWISE, SQUARE])), outputs)
        for i in range(data.draw(st.integers(1, 4))):
            name = data.draw(st.sampled_from(["add", "subtract", "maximum", "minimum", "prelu", "multiply"]))
            if name == "prelu":
                value = prelu(emit, value, outputs, i)
                continue
            operand = vector(outputs, i) if name == "multiply" or data.draw(st.booleans()) else side
            pair = (value, operand) if data.draw(st.booleans()) else (operand, value)
            value = emit(getattr(relax.op, name)(*pair))
        signs = pack(emit, value, 0.5, data.draw(st.sampled_from([-1, 1])))
        last = layer(emit, signs, geometry(outputs, channels_last=1), outputs)
        return relax.op.add(last, value) if data.draw(st.booleans()) else last

    shape = (data.draw(st.integers(1, 2)), height, width, CHANNELS)
    module = build([shape], body)
    x = np.random.default_rng(0).integers(-6, 7, shape).astype("float32")
    lowered = lower_packed(module, host_target())
    found = run_plan(lowered, host_target(), x, tmp_path_factory.mktemp("epilogue"))
    np.testing.assert_array_equal(found, evaluate(module, x))
