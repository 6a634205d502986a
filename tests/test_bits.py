"""The packing convention, against its definition bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.bits import as_words, pack_bits, packed_size, unpack_bits
from bnn_deploy.errors import InputError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_packing_matches_the_definition(rows: int, count: int, seed: int) -> None:
    """Breaks when the bit order, the padding or the round trip of packed rows changes."""
    signs = np.random.default_rng(seed).choice(np.array([-1, 1]), size=(rows, count))
    packed = pack_bits(signs)
    assert packed.shape == (rows, packed_size(count)) and packed.dtype == np.uint8
    for row in range(rows):
        number = sum(1 << k for k in range(count) if signs[row, k] == 1)
        assert int.from_bytes(packed[row].tobytes(), "little") == number
    assert np.array_equal(unpack_bits(packed, count), signs)
    assert np.array_equal(pack_bits(signs == 1), packed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_words_hold_element_k_at_bit_k(count: int, seed: int) -> None:
    """Breaks when the word view of packed rows reorders bits or forgets the zero padding."""
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=count)
    words = as_words(pack_bits(signs))
    assert words.dtype == np.dtype("<u4") and words.shape == (-(-count // 32),)
    bits = [(int(words[k // 32]) >> (k % 32)) & 1 for k in range(32 * len(words))]
    assert bits == [int(sign == 1) for sign in signs] + [0] * (32 * len(words) - count)


@pytest.mark.parametrize("value", [0.0, np.nan, 2.0, -0.5])
def test_other_values_than_signs_are_refused(value: float) -> None:
    """Breaks when zero or NaN weights are packed silently as -1."""
    with pytest.raises(InputError, match="packs only \\+1 and -1"):
        pack_bits(np.array([1.0, value, -1.0]))


def test_bad_arrays_are_refused() -> None:
    """Breaks when a wrong dtype, a scalar or a row that is too short is read as bits."""
    with pytest.raises(InputError, match="at least one axis"):
        pack_bits(np.float32(1))
    with pytest.raises(InputError, match="uint8"):
        unpack_bits(np.zeros(2, np.int8), 3)
    with pytest.raises(InputError, match="cannot take 17 elements"):
        unpack_bits(np.zeros(2, np.uint8), 17)
    with pytest.raises(InputError, match="uint8"):
        as_words(np.zeros(2, np.int32))
