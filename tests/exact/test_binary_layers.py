"""Signs and binary layers of all kinds, and random networks of them and real-valued operators, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tvm import relax

from bnn_deploy.dialect.operators import call
from bnn_deploy.passes.relax.drop_identity import drop_identity
from bnn_deploy.passes.relax.fold_affine import fold_affine
from bnn_deploy.passes.relax.fold_threshold import fold_threshold
from bnn_deploy.passes.relax.gather_shifts import gather_shifts
from bnn_deploy.passes.relax.merge_layers import merge_layers
from bnn_deploy.passes.relax.name_layers import name_layers
from bnn_deploy.passes.relax.pack import pack
from bnn_deploy.passes.relax.split_means import split_means
from bnn_deploy.passes.relax.to_channels_last import to_channels_last
from tests.exact.networks import Operator, assert_same_bits, side_by_side
from tests.passes.networks import constant, convolution, geometry, linear, operators
from tests.passes.random_networks import Layers, networks

PASSES = (
    name_layers,
    drop_identity,
    fold_threshold,
    fold_affine,
    to_channels_last,
    split_means,
    pack,
    gather_shifts,
    merge_layers,
)


@st.composite
def packed_layers(draw: st.DrawFn, channels: int) -> Operator:
    """A sign of an image of ``channels``, and a binary layer of it, with real scales and shifts."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    zero, tap = draw(st.sampled_from([-1, 0, 1, 2])), draw(st.booleans())
    depthwise = draw(st.booleans())
    outputs = channels if depthwise else draw(st.sampled_from([1, 8, 33, 64]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 2)]))
    pads = tuple(draw(st.integers(0, 1)) for _ in range(4)) if kernel == (3, 3) else (0, 0, 0, 0)
    three = int(zero in (0, 2))
    attributes = geometry(
        channels, kernel, draw(st.sampled_from([(1, 1), (2, 2)])), pads, channels if depthwise else 1, three, 1
    )
    scale = random.normal(size=(outputs, kernel[0] * kernel[1]) if tap else outputs)
    shift = random.normal(size=outputs) * draw(st.sampled_from([0, 1]))
    threshold = constant(random.normal(size=(1, 1, 1, channels)))
    name = "bnn.packed_tap_scaled_conv2d" if tap else "bnn.packed_conv2d"
    seed = int(random.integers(1000))

    def operator(emit: object, x: relax.Var) -> relax.Expr:
        words = call("bnn.ternary_pack", [x]) if zero == 2 else call("bnn.sign_pack", [x, threshold], {"zero": zero})
        return convolution(emit(words), outputs, attributes, scale, shift, name, seed)

    return operator


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), channels=st.sampled_from([3, 32, 40, 64]), batch=st.integers(1, 2))
def test_layers(data: st.DataObject, channels: int, batch: int) -> None:
    """Breaks if dot products, padding, groups, planes of three-valued words, or the order of scale and shift go wrong."""
    shape = (batch, 5, 6, channels)
    layers = data.draw(st.lists(packed_layers(channels), min_size=5, max_size=5))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = linear_rows(channels, random)
    with tempfile.TemporaryDirectory() as folder:
        x = random.normal(size=shape).astype(np.float32)
        x[random.random(shape) < 0.05] = np.nan
        assert_same_bits(side_by_side(shape, [*layers, *rows]), x, Path(folder))


def linear_rows(channels: int, random: np.random.Generator) -> list[Operator]:
    """Linear layers of rows of channels, of two and of three values."""

    def operator(three: int) -> Operator:
        def built(emit: object, x: relax.Var) -> relax.Expr:
            rows = emit(relax.op.reshape(x, (int(x.ty.shape.values[0]), -1, channels)))
            words = call("bnn.sign_pack", [rows, constant(0.25)], {"zero": 0 if three else -1})
            scale, shift = random.normal(size=16), random.normal(size=16)
            return linear(emit(words), channels, 16, scale, shift, "bnn.packed_linear", three)

        return built

    return [operator(0), operator(1)]


@pytest.fixture
def real_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random networks' parameters are real numbers in place of quarters, so that every operation rounds."""

    def numbers(layers: Layers, count: int, quarters: int = 8) -> np.ndarray:
        return layers.random.normal(size=count).astype(np.float32)

    monkeypatch.setattr(Layers, "numbers", numbers)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=networks(deepest=5), seed=st.integers(0, 2**32 - 1))
def test_random_networks(real_numbers: None, case: tuple[tvm.IRModule, np.ndarray], seed: int) -> None:
    """Breaks if what a kernel computes depends on what it is fused with: then the evaluation, operator by operator, differs."""
    module, x = case
    for transform in PASSES:
        module = transform(module)
    # Without an operator there is no kernel, which the compiler refuses.
    assume(operators(module))
    x = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        assert_same_bits(module, x, Path(folder))
