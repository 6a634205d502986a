"""recognise_activations: spellings of a sign become one operator and compute the same; look-alikes stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.ops.registry import STANDARD_OPSET
from bnn_deploy.passes.onnx.activations.describe_values import describe_values
from tests.passes.onnx.activations.activation_models import (
    F32,
    adversarial,
    before_layer,
    operators,
    recognised,
    run,
    standard,
    to_float,
)

CONSTANTS = {"m3": -3, "m1": -1, "0": 0, "half": 0.5, "1": 1, "2": 2, "3": 3, "third": 1 / 3, "quarter": 0.25}


def nodes(text: str) -> list[onnx.NodeProto]:
    """One node a line: ``output = Operator input input``; Cast makes float32, a ``-`` is an input left out."""
    found = []
    for line in text.split(";"):
        output, _, call = line.strip().partition(" = ")
        operator, _, inputs = call.partition(" ")
        found.append(to_float(inputs, output) if operator == "Cast" else standard(operator, inputs, output))
    return found


def network(text: str, **constants: object) -> onnx.ModelProto:
    """A model of ``nodes(text)``, with those of CONSTANTS that it reads."""
    made = nodes(text)
    read = {name for node in made for name in node.input}
    return before_layer(made, {k: v for k, v in CONSTANTS.items() if k in read} | constants)


ESTIMATOR = """s = Sign x; b1 = Less x {mask}; b2 = Less x 0; b3 = Less x 1; f1 = Cast b1; f2 = Cast b2; f3 = Cast b3;
q = Mul x x; t = Mul x 2; l = Add q t; n = Neg x; o = Mul n x; r = Add o t; g1 = Mul f1 m1; h1 = Sub 1 f1; k1 = Mul l h1;
o1 = Add g1 k1; g2 = Mul o1 f2; h2 = Sub 1 f2; k2 = Mul r h2; o2 = Add g2 k2; g3 = Mul o2 f3; h3 = Sub 1 f3;
o3 = Add g3 h3; d = Sub s o3; a = Add d o3"""

# What is written -> what is left before the layer, and what the graph makes of 0.
SPELLINGS = {
    "a = Sign x": ("Sign!0", 0),
    "b = Greater x 0; a = Where b 1 m1": ("Sign!-1", -1),
    "b = GreaterOrEqual x 0; a = Where b 1 m1": ("Sign!1", 1),
    "b = Less x 0; n = Not b; a = Where n 1 m1": ("Sign!1", 1),
    "b = Less 0 x; a = Where b 1 m1": ("Sign!-1", -1),
    "b = LessOrEqual x 0; a = Where b m1 1": ("Sign!-1", -1),
    "b = Greater x 0; f = Cast b; d = Mul f 2; a = Sub d 1": ("Sign!-1", -1),
    "b = Greater x 0; c = Less x 0; f = Cast b; g = Cast c; a = Sub f g": ("Sign!0", 0),
    "c = Clip x m1 1; a = Sign c": ("Sign!0", 0),
    "s = Sign x; d = Sub s x; a = Add x d": ("Sign!0", 0),
    "s = Sign x; d = Sub x s; a = Sub x d": ("Sign!0", 0),
    "s = Sign x; c = Clip x m1 1; d = Sub s c; a = Add d c": ("Sign!0", 0),
    "s = Sign x; b = GreaterOrEqual s 0; a = Where b 1 m1": ("Sign!1", 1),
    "s = Sign x; e = Equal s 0; a = Where e m1 s": ("Sign!-1", -1),
    "s = Sign x; t = Add s half; a = Sign t": ("Sign!1", 1),
    "r = Relu x; d = Mul r half; s = Sign d; e = Sub s half; a = Mul e 2": ("Sign!-1", -1),
    "c = Relu x; a = Sign c": ("Sign!-1 Mul Add", -1),
    "s = Sign x; t = Add s 1; a = Mul t half": ("Sign!0 Mul Add", 0),
    "s = Sign x; a = Neg s": ("Sign!0 Mul", 0),
    "s = Sign x; a = Mul s third": ("Sign!0 Mul", 0),
    "b = Greater x 0; a = Cast b": ("Sign!-1 Mul Add", -1),
    "b = Greater x quarter; a = Where b 3 1": ("Sign!-1 Add", -1),
    "b = GreaterOrEqual x quarter; a = Where b 1 m1": ("Sign!1", 1),
    "c = Clip x m1 1; a = Round c": ("Ternary!", 0),
    "d = Mul x 2; c = Clip d m1 1; r = Round c; a = Mul r third": ("Mul Ternary! Mul", 0),
    "d = Abs x; b = Greater d quarter; f = Cast b; s = Sign x; a = Mul s f": ("Mul Ternary!", 0),
    ESTIMATOR.format(mask="m1"): ("Sign!0", 0),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings(text: str) -> None:
    """Breaks if a way of writing a sign is not understood, or understood as something that computes other values."""
    before = network(text)
    after, report = recognised(before, sign_zero="0")
    expected, zero = SPELLINGS[text]
    assert operators(after) == expected.split()
    x = adversarial([1 / 3])
    np.testing.assert_array_equal(run(after, x), run(before, x))
    (found,) = report.activations
    assert (found.source, found.graph_zero) == ("d" if text.startswith("d = Mul") else "x", zero)
    three_valued = "ternary" if "Ternary" in expected else "sign with zero"
    assert found.kind == (three_valued if zero == 0 else "sign")


LOOK_ALIKES = {
    "s = Sign x; a = Mul s x": "real values from Mul",
    "r = Round x; a = Clip r 0 3": "4 values (2 bits) from Round 'module.r'",
    "s = Sign x; t = Mul s third; d = Sub t x; a = Add d x": "not be proved",
    "s = Sign x; a = Abs s": "2 values, but neither rises nor falls",
    "b = Greater x 0; c = Greater x 1; f = Cast b; g = Cast c; a = Add f g": "is 1 for x from",
    "b = Greater x 0; a = Where b 1 x": "real values from Where",
    "a = Relu x": "real values from Relu 'module.a'",
    "b = Greater x 0; a = Where b third m3": "does not hold exactly",
    ESTIMATOR.format(mask="m3"): "not be proved",
}


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_stay(text: str) -> None:
    """Breaks if what is no binary activation is taken for one, or the reason given is another's."""
    before = network(text)
    after, report = recognised(before)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    assert report.activations == []
    words = describe_values(ir.from_proto(before).graph.node(-1).inputs[0])
    assert LOOK_ALIKES[text] in words or LOOK_ALIKES[text] in words.replace("takes ", "")


def test_sign_of_infinity_by_reciprocal() -> None:
    """Breaks if 1/x > 0, which tells -0.0 from 0.0, is read as a sign of x rather than of 1/x."""
    before = network("r = Div 1 x; b = Greater r 0; a = Where b 1 m1")
    after, report = recognised(before)
    assert report.activations[0].source == "r"
    x = adversarial()
    np.testing.assert_array_equal(run(after, x), run(before, x))
    assert run(after, F32([[[-0.0], [0.0]]])).ravel().tolist() == [-1.0, 1.0]


STEP_CONSTANTS = st.floats(-100, 100, width=32).map(F32)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]),
    STEP_CONSTANTS,
    STEP_CONSTANTS,
    STEP_CONSTANTS,
)
def test_any_step(comparison: str, threshold: F32, yes: F32, no: F32) -> None:
    """Breaks if a step of any place and height is off by one float, or its factor and offset are rounded."""
    before = network(f"b = {comparison} x t; a = Where b yes no", t=threshold, yes=yes, no=no)
    after, report = recognised(before)
    x = adversarial([threshold])
    np.testing.assert_array_equal(run(after, x), run(before, x))
    if (float(yes) + float(no)) / 2 == 0.0 != yes:
        assert len(report.activations) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP_CONSTANTS, min_size=3, max_size=3), st.sampled_from(["b = GreaterOrEqual x t", "b = Less t x"]))
def test_thresholds_per_channel(thresholds: list[F32], compared: str) -> None:
    """Breaks if one threshold per channel is not understood, or the value at the threshold is another."""
    made = nodes(f"{compared}; a = Where b 1 m1")
    before = before_layer(made, {"t": np.array(thresholds, F32), "1": F32(1), "m1": F32(-1)}, channels=3)
    after, report = recognised(before)
    assert operators(after) == ["Sign!1" if "OrEqual" in compared else "Sign!-1"]
    assert len(set(thresholds)) == 1 or report.activations[0].threshold == "t"
    x = adversarial(thresholds, channels=3)
    np.testing.assert_array_equal(run(after, x), run(before, x))


def test_other_use_of_a_thresholded_value_is_declined() -> None:
    """Breaks if x, compared with a threshold per channel and read otherwise too, is taken to be only compared."""
    made = nodes("b = Greater x t; c = Where b 1 m1; d = Sub c x; a = Add d x")
    before = before_layer(made, {"t": F32([1, 2, 3]), "1": F32(1), "m1": F32(-1)}, channels=3)
    after, report = recognised(before)
    assert report.activations == []
    assert operators(after) == ["Greater", "Where", "Sub", "Add"]


@pytest.mark.parametrize("maker", ["full", "Expand", "ConstantOfShape"])
def test_constants_of_the_shape_of_x(maker: str) -> None:
    """Breaks if ones_like(x), folded or not, hides a sign."""
    if maker == "full":
        made = nodes("b = Greater x 0; a = Where b ones minus")
        constants: dict[str, object] = {"ones": np.ones((1, 1, 1), F32), "minus": -np.ones((1, 1, 1), F32)}
    else:
        ones = standard("Expand", "1 shape", "ones")
        if maker == "ConstantOfShape":
            value = numpy_helper.from_array(np.ones(1, F32))
            ones = standard("ConstantOfShape", "shape", "ones", value=value)
        made = [
            standard("Shape", "x", "shape"),
            ones,
            *nodes("b = Greater x 0; minus = Neg ones; a = Where b ones minus"),
        ]
        constants = {"1": F32(1)} if maker == "Expand" else {}
    before = before_layer(made, constants | {"0": F32(0)})
    after, _ = recognised(before)
    assert operators(after) == ["Sign!-1"]
    np.testing.assert_array_equal(run(after, adversarial()), run(before, adversarial()))


def test_constants_that_enlarge_are_declined() -> None:
    """Breaks if a constant that broadcasts x to more elements is taken for a number: the layer would get another shape."""
    made = nodes("b = Greater x 0; a = Where b ones m1")
    before = before_layer(made, {"ones": np.ones((1, 4, 1), F32), "m1": F32(-1), "0": F32(0)})
    assert recognised(before)[1].activations == []


def test_constants_that_add_an_axis_are_declined() -> None:
    """Breaks if a constant of more axes than x is taken for a number: what reads the result would miss an axis."""
    made = nodes("b = Greater x 0; more = Where b ones m1; a = Squeeze more first")
    constants = {"ones": np.ones((1, 1, 1, 1), F32), "m1": F32(-1), "0": F32(0), "first": np.zeros(1, np.int64)}
    assert recognised(before_layer(made, constants))[1].activations == []


@pytest.mark.parametrize(("choice", "attribute"), [("-1", -1), ("0", 0), ("+1", 1), ("auto", 0)])
def test_sign_zero(choice: str, attribute: int) -> None:
    """Breaks if the user's choice for sign(0) is not followed, or "auto" drops the zeros of a network's input."""
    after, report = recognised(network("a = Sign x"), sign_zero=choice)
    assert operators(after) == [f"Sign!{attribute}"]
    (found,) = report.activations
    assert (found.graph_zero, found.compiled_zero) == (0, attribute)
    assert "--sign-zero" in found.note
    assert run(after, np.zeros((1, 1, 1), F32)).item() == attribute


def test_the_choice_does_not_touch_explicit_steps() -> None:
    """Breaks if --sign-zero changes a graph that says ±1 at the threshold."""
    after, report = recognised(network("b = GreaterOrEqual x 0; a = Where b 1 m1"), sign_zero="-1")
    assert operators(after) == ["Sign!1"]
    assert report.activations[0].note == ""


def test_names_and_metadata_stay() -> None:
    """Breaks if a binarisation loses the module path under which users know it."""
    before = network("c = Clip x m1 1; s = Sign x; d = Sub s c; a = Add d c")
    next(n for n in before.graph.node if n.op_type == "Sign").metadata_props.add(key="scope", value="block.sign")
    after, report = recognised(before)
    sign = after.graph.node[0]
    assert (sign.name, sign.metadata_props[0].value, report.activations[0].name) == (
        "module.s",
        "block.sign",
        "module.s",
    )


def test_one_source_becomes_one_node() -> None:
    """Breaks if sibling layers that write the same sign twice get two Sign nodes, or one that is shared loses a factor."""
    made = nodes("s = Sign x; d = Sub s x; e = Add d x; f = Mul s third; g = Mul f 3; z = MatMul e w; v = MatMul f w")
    made += [*nodes("u = Add z v"), standard("Identity", "e", "a")]
    before = before_layer(made, {"third": F32(1 / 3), "3": F32(3)})
    before.graph.output.append(onnx.helper.make_tensor_value_info("g", TensorProto.FLOAT, [None] * 3))
    before.graph.output.append(onnx.helper.make_tensor_value_info("u", TensorProto.FLOAT, [None] * 3))
    after, report = recognised(before, sign_zero="0")
    assert [n.op_type for n in after.graph.node].count("Sign") == len(report.activations) == 1
    for name in ("u", "g", "a"):
        np.testing.assert_array_equal(run(after, adversarial(), name), run(before, adversarial(), name))


def test_through_movement_pooling_and_channel_scales() -> None:
    """Breaks if a sign behind data movement, pooling or a factor per channel is not seen."""
    made = nodes("s = Sign x; p = Mul s f; t = Transpose p; u = Transpose t; a = Concat u")
    made[-1].attribute.append(onnx.helper.make_attribute("axis", 0))
    before = before_layer(made, {"f": F32([1, 2, 3])}, channels=3)
    after, _ = recognised(before, sign_zero="0")
    assert operators(after) == ["Sign!0", "Mul", "Transpose", "Transpose", "Concat"]
    words = describe_values(ir.from_proto(after).graph.node(-1).inputs[0])
    assert words == "three values (-1, 0, +1), scaled or moved by Mul 'module.p'"


def test_description_of_the_input() -> None:
    """Breaks if a first layer, which reads the image, is reported as something else."""
    model = ir.from_proto(before_layer([standard("Identity", "x", "a")]))
    assert describe_values(model.graph.node(-1).inputs[0]) == "the network input"
    signs = ir.from_proto(recognised(network("b = Greater x 0; a = Where b 1 m1"))[0])
    assert describe_values(signs.graph.node(-1).inputs[0]) == "signs"


def test_many_ways_to_one_source_end() -> None:
    """Breaks if a graph in which each value is read twice, forty times in a row, takes exponential time."""
    made, last = [], "x"
    for level in range(40):
        made += nodes(f"l{level} = Mul {last} f; r{level} = Div {last} f; c{level} = Concat l{level} r{level}")
        made[-1].attribute.append(onnx.helper.make_attribute("axis", 0))
        last = f"c{level}"
    made += [standard("Slice", f"{last} from to axes", "a")]
    indices = {name: np.array([number], np.int64) for name, number in {"from": 0, "to": 1, "axes": 0}.items()}
    before = before_layer([*nodes("h = Sign x"), *made], {"f": F32([1, 2, 3]), **indices}, channels=3)
    assert recognised(before)[1].activations == []


def test_half_precision_counts() -> None:
    """Breaks if a sign of float16 values is read as one of the float32 values they were rounded from."""
    half = standard("Cast", "x", "h", to=TensorProto.FLOAT16)
    before = before_layer([half, *nodes("s = Sign h; a = Cast s")])
    after, report = recognised(before, sign_zero="-1")
    # float16 rounds what lies within ±2**-25 (half its smallest number, an exact tie, to even) to 0.
    assert operators(after) == ["Mul", "Ternary!"]
    assert report.activations[0].threshold == 2.0**-25
    x = adversarial([2.0**-25, 2.0**-24])
    np.testing.assert_array_equal(run(after, x), run(before, x))


def test_a_bias_is_no_activation() -> None:
    """Breaks if a step that a layer adds is reported, and rewritten, as one that it multiplies."""
    nodes = [
        standard("Sign", "x", "a"),
        standard("Greater", "x two", "b"),
        standard("Where", "b one minus", "c"),
        standard("Gemm", "a w c", "y"),
    ]
    constants = {"two": F32(2), "one": F32(1), "minus": F32(-1), "w": np.ones((4, 4), F32)}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "network", values[:1], values[1:], tensors)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", STANDARD_OPSET)], ir_version=10)
    after, report = recognised(onnx.shape_inference.infer_shapes(network, strict_mode=True))
    assert [activation.name for activation in report.activations] == ["module.a"]
    assert operators(after) == ["Sign!0", "Greater", "Where"]
