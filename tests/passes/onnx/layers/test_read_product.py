"""Every way to write a matrix product of signs, before and after ``recognise_layers`` under onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import (
    HALF,
    ZERO,
    ZERO_ONE,
    apply,
    network,
    numbers,
    only,
    run,
    sign_node,
    signs,
    types,
)
from tests.passes.onnx_models import node


@settings(max_examples=40, deadline=None)
@given(
    on_the_left=st.booleans(),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, 2.0, 0.0]),
    addend=st.sampled_from(["none", "scalar", "outputs", "rows", "matrix", "computed"]),
    columns=st.sampled_from([3, 5]),
    zero_one=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(True, False, False, 0.5, 2.0, "outputs", 3, True, 0)  # as many rows as columns: which of them are outputs?
def test_every_gemm(
    on_the_left: bool,
    trans_a: bool,
    trans_b: bool,
    alpha: float,
    beta: float,
    addend: str,
    columns: int,
    zero_one: bool,
    seed: int,
) -> None:
    """Breaks if a transposition, alpha, beta or the addend of a Gemm is read wrongly."""
    rows, terms = 3, 19
    left, right = ((terms, rows) if trans_a else (rows, terms)), ((columns, terms) if trans_b else (terms, columns))
    weights, shape = signs(left if on_the_left else right, seed) * np.float32(0.5), right if on_the_left else left
    shapes = {"scalar": (), "outputs": (columns,), "rows": (rows, 1), "matrix": (rows, columns)}
    constants = ZERO | HALF | {"w": weights}
    if addend in shapes:
        constants["c"] = numbers(shapes[addend], seed)
    activation = ZERO_ONE if zero_one else [sign_node(output="u")]
    inputs = ("w u" if on_the_left else "u w") + (" c" if addend != "none" else "")
    flags = {"transA": int(trans_a), "transB": int(trans_b), "alpha": alpha, "beta": beta}
    extra = {"c": (rows, columns)} if addend == "computed" else {}
    model = network([*activation, node("Gemm", inputs, "y", "layer", **flags)], shape, constants, extra_inputs=extra)
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary and "BinaryLinear" in types(after)
    x = {"x": numbers(shape, seed)} | ({"c": numbers((rows, columns), seed)} if extra else {})
    # Multiples of 1/16 of a few units: exact in any order.
    np.testing.assert_array_equal(run(after, **x), run(model, **x))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 4)])
def test_matrix_on_the_right(leading: tuple[int, ...]) -> None:
    """Breaks if MatMul(x, w) loses leading axes or takes w for its transpose."""
    model = network(
        [sign_node(), node("MatMul", "s w", "y", "layer")],
        (*leading, 11),
        ZERO | {"w": signs((11, 11)) * np.float32(2) ** np.arange(11, dtype="float32")},
    )
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryLinear", "Mul"] and only(reports).binary
    x = numbers((*leading, 11))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_matrix_on_the_left(leading: tuple[int, ...]) -> None:
    """Breaks if MatMul(w, x), which has outputs as rows, is not turned round and back."""
    weights = signs((7, 11)) * np.float32(2) ** np.arange(7, dtype="float32")[:, None]
    shape = (*leading, 11, 11)
    model = network([sign_node(), node("MatMul", "w s", "y", "layer")], shape, ZERO | {"w": weights})
    after, reports = apply(model, recognise_layers)
    assert types(after) == ["Sign", "Transpose", "BinaryLinear", "Mul", "Transpose"] and only(reports).binary
    x = numbers(shape)
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_matrix_on_the_left_of_a_vector() -> None:
    """Breaks if a vector, which has no second axis, is transposed."""
    model = network([sign_node(), node("MatMul", "w s", "y", "layer")], (11,), ZERO | {"w": signs((7, 11))})
    after, _ = apply(model, recognise_layers)
    assert types(after) == ["Sign", "BinaryLinear"]
    x = numbers((11,))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))


def test_stack_of_one_matrix() -> None:
    """Breaks if exporters' (1, K, O) weights are not seen to be one matrix."""
    model = network([sign_node(), node("MatMul", "s w", "y", "layer")], (2, 3, 8), ZERO | {"w": signs((1, 8, 4))})
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary
    x = numbers((2, 3, 8))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
