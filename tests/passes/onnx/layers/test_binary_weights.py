"""judge_weights: exact ±a, the leftovers of training arithmetic, zeros, and words for everything else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.layers.binary_weights import BinaryWeights, RealWeights, judge_weights
from tests.passes.onnx.layers.layer_models import signs

SCALE = np.array([0.25, 0.0371, 3.5], "float32").reshape(3, 1, 1)


def binary(weights: np.ndarray) -> BinaryWeights:
    judged = judge_weights(weights)
    assert isinstance(judged, BinaryWeights), judged
    return judged


def real(weights: np.ndarray) -> RealWeights:
    judged = judge_weights(weights)
    assert isinstance(judged, RealWeights), judged
    return judged


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_exact_weights_of_any_width(dtype: type) -> None:
    """Breaks if ±a of a narrow type is judged after a second rounding, or signs and scales are mixed up."""
    pattern = signs((3, 9, 4))
    weights = (pattern * SCALE).astype(dtype)
    judged = binary(weights)
    np.testing.assert_array_equal(judged.signs, pattern > 0)
    np.testing.assert_array_equal(judged.scale, np.abs(weights[:, 0, 0].astype(np.float64)))
    assert (judged.deviation, judged.zeros, judged.per_tap) == (0.0, 0, False)
    assert judged.words == "±a per output channel"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(2.0**-7, 3.0), factor=st.sampled_from([None, 0.3, 1.2]))
def test_leftovers_of_training_arithmetic(seed: int, scale: float, factor: float | None) -> None:
    """Breaks if weights that are ±a but for the rounding of a*sign(w) - clip(w) + clip(w) are taken for real ones."""
    random = np.random.default_rng(seed)
    weights = random.uniform(-1.5, 1.5, (4, 9, 8)).astype("float32")
    clipped, a = np.clip(weights, -1, 1), np.float32(scale)
    left = (a * np.sign(weights) - clipped) + clipped
    if factor is not None:  # a batch norm folded into the weights
        left = left * np.float32(factor)
    judged = binary(left)
    # |left| is a but for 2**-25 * (1 + 4a), times the factor; see ABSOLUTE_ROUNDING. In relation 2**-25 * (2**7 + 4) from
    # a = 2**-7 on, and 2**-24 for the factor: below 1.1 * 2**-18. The deviation compares two such magnitudes.
    expected = float(a) * (1 if factor is None else float(np.float32(factor)))
    np.testing.assert_allclose(judged.scale, expected, rtol=1.1 * 2.0**-18, atol=0)
    np.testing.assert_array_equal(judged.signs, weights > 0)
    assert judged.deviation <= 1.1 * 2.0**-17


def test_deviation_is_reported() -> None:
    """Breaks if the report calls weights exact that are not."""
    weights = np.full((1, 1, 5), 0.5, "float32")
    weights[0, 0, 3] = np.nextafter(np.float32(0.5), np.float32(1))
    judged = binary(weights)
    assert judged.deviation == 2.0**-23
    assert judged.scale.tolist() == [0.5]


@pytest.mark.parametrize(("scale", "step"), [(0.5, 2.0**-19), (0.01, 2.0**-20), (8.0, 2.0**-18), (1e-30, 1e-34)])
def test_what_rounding_does_not_leave_is_real(scale: float, step: float) -> None:
    """Breaks if weights of really different magnitudes are made equal."""
    weights = (signs((2, 1, 64)) * scale).astype("float64")
    weights[1, 0, 7] += np.sign(weights[1, 0, 7]) * step
    assert real(weights).spread > 0


@pytest.mark.parametrize(("scale", "step"), [(0.5, 2.0**-21), (0.01, 2.0**-23), (8.0, 2.0**-20)])
def test_what_rounding_may_leave_is_binary(scale: float, step: float) -> None:
    """Breaks if the tolerance is tighter than its derivation."""
    weights = (signs((2, 1, 64)) * scale).astype("float64")
    weights[1, 0, 7] += np.sign(weights[1, 0, 7]) * step
    assert binary(weights).deviation == pytest.approx(step / scale)


def test_zeros_are_counted_and_read_as_minus() -> None:
    """Breaks if a weight of 0 silently becomes +a, or is not reported."""
    weights = signs((3, 1, 40)) * SCALE
    weights[1, 0, [2, 30]] = 0.0
    weights[2, 0, 5] = -0.0
    judged = binary(weights)
    assert judged.zeros == 3
    assert not judged.signs[1, 0, [2, 30]].any() and not judged.signs[2, 0, 5]
    np.testing.assert_array_equal(judged.scale, SCALE.ravel())
    assert judged.words == "±a per output channel and 3 exact zeros"


def test_pruned_channel_has_scale_zero() -> None:
    """Breaks if a channel of zeros is taken for zero weights, which need the user's choice."""
    weights = signs((3, 9, 4)) * SCALE
    weights[1] = 0
    judged = binary(weights)
    assert judged.zeros == 0
    assert judged.scale.tolist() == [0.25, 0.0, 3.5]
    assert binary(np.zeros((2, 1, 3), "float32")).scale.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("taps", [2, 9])
def test_scale_of_every_kernel_position(taps: int) -> None:
    """Breaks if the released BiMLP's weights are taken for real ones, or its taps are in another order."""
    scale = np.arange(1, 3 * taps + 1, dtype="float32").reshape(3, taps)
    pattern = signs((3, taps, 4))
    judged = binary(pattern * scale[:, :, None])
    assert judged.per_tap
    np.testing.assert_array_equal(judged.scale, scale)
    np.testing.assert_array_equal(judged.signs, pattern > 0)
    assert judged.words == "±a per output channel and kernel position"


def test_one_scale_for_all_taps_comes_first() -> None:
    """Breaks if ordinary binary convolutions become the slower ones with a scale for every tap."""
    assert not binary(signs((2, 9, 4))).per_tap


def test_taps_without_zeros_come_before_channels_with_zeros() -> None:
    """Breaks if a kernel that is 0 at whole positions needs a choice although it can be computed exactly."""
    weights = signs((2, 9, 4))
    weights[:, [0, 8]] = 0
    judged = binary(weights)
    assert judged.per_tap and judged.zeros == 0
    assert judged.scale[0].tolist() == [0.0, *[1.0] * 7, 0.0]


def test_real_depthwise_kernels_are_not_binary() -> None:
    """Breaks if any real-valued depthwise convolution counts as binary because each tap has a single weight."""
    assert real(np.random.default_rng(0).normal(size=(8, 9, 1)).astype("float32")).spread > 0.5


def test_depthwise_kernels_over_signs_have_one_number_per_position() -> None:
    """Breaks if the released BiMLP's 1x7 layers, which multiply signs with any seven numbers, are left to float kernels."""
    weights = np.random.default_rng(0).normal(size=(8, 7, 1)).astype("float32")
    weights[3, 2] = 0.0
    judged = judge_weights(weights, of_signs=True)
    assert isinstance(judged, BinaryWeights) and judged.per_tap and judged.zeros == 0 and judged.deviation == 0.0
    np.testing.assert_array_equal(np.where(judged.signs[..., 0], 1.0, -1.0) * judged.scale, weights[..., 0])
    assert judged.words == "one real number per kernel position"


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.tile([-0.5, 0.25, 0.5, -0.25], 3).reshape(1, 1, 12), "4 different values per output channel (2 bits)"),
        (np.tile([-1.0, 0.5, 1.0], 4).reshape(1, 1, 12), "3 different values per output channel (2 bits)"),
        (np.tile([3.0, -1.0], 6).reshape(1, 1, 12), "2 different values per output channel (1 bit)"),
        (np.arange(1, 101).reshape(1, 1, 100) / 100, "100 different magnitudes per output channel, spread 99%"),
        (np.linspace(0.5, 1, 3000).reshape(1, 1, -1), "3,000 different magnitudes per output channel, spread 50%"),
        (np.arange(1, 10).reshape(1, 9, 1), "9 different magnitudes per output channel, spread 89%"),
        (np.array([[[1.0, np.nan]]]), "NaN or infinity"),
        (np.array([[[1.0, -np.inf]]]), "NaN or infinity"),
        (np.zeros((0, 9, 4)), "nothing"),
    ],
)
def test_words_for_real_weights(weights: np.ndarray, words: str) -> None:
    """Breaks if the report says something else about real weights than what they are."""
    judged = real(weights.astype("float32"))
    assert judged.words == words
    assert 0 <= judged.spread < 1


def test_large_layers_are_judged_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if blocks of channels are put together in the wrong order."""
    monkeypatch.setattr("bnn_deploy.passes.onnx.layers.binary_weights._BLOCK", 8)
    scale = np.arange(1, 6, dtype="float32").reshape(5, 1, 1)
    pattern = signs((5, 2, 3))
    pattern[3, 1, 1] = 0
    judged = binary(pattern * scale)
    np.testing.assert_array_equal(judged.scale, scale.ravel())
    assert judged.zeros == 1
    levels = np.tile([1.0, 2.0, 3.0, 1.0], (5, 2)).reshape(5, 2, 4)
    levels[4, 0, 0] = 9.0
    judged_real = real(levels)
    assert judged_real.words == "4 different values per output channel (2 bits)"
    assert judged_real.spread == 1 - 1 / 9
