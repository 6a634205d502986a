"""Scales, offsets and data movement between the sign and its layer, before and after ``recognise_layers`` under onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_deploy.passes.onnx.layers.recognise_layers import recognise_layers
from tests.passes.onnx.layers.layer_models import (
    HALF,
    ZERO,
    apply,
    convolution,
    network,
    numbers,
    only,
    run,
    sign_node,
    signs,
    tolerance,
    types,
)
from tests.passes.onnx_models import node

ROLL = {
    "b0": np.array([2], np.int64),
    "e0": np.array([2**31], np.int64),
    "b1": np.array([0], np.int64),
    "axis": np.array([2], np.int64),
}


def roll(source: str, output: str) -> list[onnx.NodeProto]:
    """Two slices and a Concat, as torch exports ``roll``."""
    return [
        node("Slice", f"{source} b0 e0 axis", f"{output}_bottom"),
        node("Slice", f"{source} b1 b0 axis", f"{output}_top"),
        node("Concat", f"{output}_bottom {output}_top", output, axis=2),
    ]


def test_scales_and_offsets_are_carried_through_data_movement() -> None:
    """Breaks if a {0, 1} activation that is rolled and transposed loses its half or its offset, or its other reader suffers."""
    activation = [
        sign_node(),
        node("Mul", "s half", "m"),
        node("Add", "half m", "u"),
        *roll("u", "r"),
        node("Transpose", "r", "t", perm=[0, 1, 3, 2]),
    ]
    model = convolution(signs((4, 6, 2, 3)), (1, 6, 5, 5), activation, HALF | ROLL, bias=np.ones(4, "float32"))
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary and only(reports).activations == "two values (0, +1)"
    x = numbers((1, 6, 5, 5))
    # Halves of small integers: exact.
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))

    both = convolution(signs((4, 6, 2, 3)), (1, 6, 5, 5), activation, HALF | ROLL)
    both.graph.node.append(node("ReduceSum", "t", "total", keepdims=0))
    both.graph.node.append(node("Add", "y total", "z"))
    both.graph.output[0].name = "z"
    after, _ = apply(both, recognise_layers)
    np.testing.assert_array_equal(run(after, x=x), run(both, x=x))


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["Mul", "Add", "Sub", "Div", "Neg", "rSub"]), st.sampled_from([0.5, -2.0, 3.0, 1.0])),
        max_size=4,
    ),
    three=st.booleans(),
)
def test_any_arithmetic_with_single_numbers(steps: list[tuple[str, float]], three: bool) -> None:
    """Breaks if a scale or offset is computed otherwise than the graph's own arithmetic does."""
    nodes, constants, last = [node("Ternary", "x", "s") if three else sign_node()], dict(ZERO), "s"
    for index, (operator, number) in enumerate(steps):
        # Thirds are rounded: then 0 may not stay exactly in the middle of three values, and the layer stays real-valued.
        number = 4.0 if three and number == 3.0 else number
        constants[f"c{index}"] = np.array(number, "float32")
        operands = {"Neg": last, "rSub": f"c{index} {last}"}.get(operator, f"{last} c{index}")
        nodes.append(node(operator.removeprefix("r"), operands, f"v{index}"))
        last = f"v{index}"
    constants["w"] = signs((8, 5)) * np.float32(0.25)
    model = network([*nodes, node("MatMul", f"{last} w", "y", "layer")], (3, 8), constants)
    after, reports = apply(model, recognise_layers)
    assert only(reports).binary
    x = numbers((3, 8)) * 2
    a, b = run(after, x=x), run(model, x=x)
    # No step makes more than four times its input and 4 out of it: below 4 ** 4 + 4 * (1 + 4 + 16 + 64) after four of them.
    assert np.abs(a - b).max() <= tolerance(9, 600.0 * 0.25)


def test_layers_that_share_an_input_go_on_sharing_it() -> None:
    """Breaks if data movement is written anew for each of several layers, which costs time in every one."""
    nodes = [sign_node(), node("Mul", "s half", "u"), *roll("u", "r")]
    layers = [node("Conv", "r w", "y1", "first"), node("Conv", "r w", "y2", "second"), node("Add", "y1 y2", "y")]
    model = network([*nodes, *layers], (1, 4, 5, 5), ZERO | HALF | ROLL | {"w": signs((3, 4, 1, 1))})
    after, reports = apply(model, recognise_layers)
    assert types(after).count("Concat") == 1
    assert [report.name for report in reports] == ["first", "second"]
    x = numbers((1, 4, 5, 5))
    np.testing.assert_array_equal(run(after, x=x), run(model, x=x))
