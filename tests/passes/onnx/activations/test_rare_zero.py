"""rare_zero: exact zeros are called an accident only where learned real numbers would have to meet."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.passes.onnx.activations.rare_zero import is_rare
from tests.passes.onnx.activations.activation_models import F32, standard

RANDOM = np.random.default_rng(0)
LEARNED = RANDOM.normal(size=8).astype(F32)
OTHER = RANDOM.normal(size=8).astype(F32)
REAL = RANDOM.normal(size=(8, 8, 3, 3)).astype(F32)
SIGNS = (np.sign(REAL) * np.abs(LEARNED).reshape(8, 1, 1, 1)).astype(F32)
ONES, ZEROS = np.ones(8, F32), np.zeros(8, F32)
DEAD = np.where(np.arange(8) == 3, 0, 1).astype(F32)


def vector(values: np.ndarray) -> np.ndarray:
    """One number per channel of (n, 8, h, w)."""
    return values.reshape(1, 8, 1, 1)


def value(*steps: tuple, number: float = 0.0) -> tuple[bool, str]:
    """What ``is_rare`` says of the last of a chain of operators, each (operator, constant...), from the input x.

    ``"skip"`` as a constant is the value before the last Conv or BatchNormalization.
    """
    nodes, tensors, last, kept = [], [], "x", "x"
    for place, (operator, *constants) in enumerate(steps):
        names = [last]
        for index, constant in enumerate(constants):
            names.append(kept if isinstance(constant, str) else f"c{place}_{index}")
            if not isinstance(constant, str):
                tensors.append(numpy_helper.from_array(np.asarray(constant, F32), names[-1]))
        if operator in ("Conv", "BatchNormalization"):
            kept = last
        attributes = {"kernel_shape": [2, 2]} if operator in ("MaxPool", "AveragePool") else {}
        nodes.append(standard(operator, " ".join(names), f"v{place}", **attributes))
        last = f"v{place}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 9, 9])]
    outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None] * 4)]
    graph = helper.make_graph(nodes, "network", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return is_rare(ir.from_proto(model).graph.outputs[0], number)


NORMALISED = [("Conv", SIGNS), ("BatchNormalization", LEARNED, LEARNED, LEARNED, ONES)]

RARE = {
    "batch normalisation after a binary layer": NORMALISED,
    "learned bias after the network's input": [("Add", vector(LEARNED))],
    "bias of zeros after batch normalisation": [*NORMALISED, ("Add", vector(ZEROS))],
    "negative slope": [*NORMALISED, ("PRelu", LEARNED.reshape(8, 1, 1)), ("Add", vector(LEARNED))],
    "bounds around 0": [*NORMALISED, ("Clip", -1, 1)],
    "pooling": [*NORMALISED, ("MaxPool",), ("AveragePool",)],
    "shortcut of anything": [*NORMALISED, ("Add", "skip")],
    "real weights with a bias": [("Conv", REAL, LEARNED)],
    "binary weights with a folded batch normalisation": [("Conv", SIGNS, OTHER)],
    "bias after Relu": [("Relu",), ("Sub", vector(LEARNED))],
    "instance normalisation": [("InstanceNormalization", ONES, ZEROS)],
    "scaled": [*NORMALISED, ("Mul", vector(LEARNED)), ("Neg",), ("Div", vector(LEARNED))],
    "a dead channel that is not 0": [("Conv", SIGNS), ("BatchNormalization", DEAD, LEARNED, LEARNED, ONES)],
}

LIKELY = {
    "network's input": [],
    "Relu": [*NORMALISED, ("Relu",)],
    "binary layer without bias": [("Conv", SIGNS)],
    "untrained batch normalisation of sums of signs": [
        ("Conv", SIGNS),
        ("BatchNormalization", LEARNED, ZEROS, ZEROS, ONES),
    ],
    "a dead channel that is 0": [
        ("Conv", SIGNS),
        ("BatchNormalization", DEAD, np.where(DEAD == 0, 0, LEARNED), LEARNED, ONES),
    ],
    "a dead channel of instance normalisation": [("InstanceNormalization", DEAD, ZEROS)],
    "bound at 0": [*NORMALISED, ("Clip", 0, 1)],
    "slope of 0": [*NORMALISED, ("PRelu", DEAD.reshape(8, 1, 1))],
    "real weights over zeros": [("Relu",), ("Conv", REAL)],
    "integer thresholds": [("Conv", np.sign(REAL)), ("Sub", vector(np.arange(8.0)))],
    "bias of zeros": [("Add", vector(ZEROS))],
    "one designed number": [("Sub", 0.5)],
    "factor 0": [*NORMALISED, ("Mul", vector(DEAD))],
    "what is not known": [*NORMALISED, ("Floor",)],
    "a computed scale of instance normalisation": [("InstanceNormalization", "skip", LEARNED)],
    "a computed bias of instance normalisation": [("InstanceNormalization", LEARNED, "skip")],
}


@pytest.mark.parametrize("case", RARE)
def test_accidents(case: str) -> None:
    """Breaks if a trained network's signs become three-valued, and slow, for zeros that never come."""
    rare, why = value(*RARE[case])
    assert rare, why
    assert why


@pytest.mark.parametrize("case", LIKELY)
def test_zeros_to_be_expected(case: str) -> None:
    """Breaks if zeros that do come are made -1 without being asked."""
    rare, why = value(*LIKELY[case])
    assert not rare, why
    assert why


def test_other_thresholds() -> None:
    """Breaks if the question is asked for 0 whatever the threshold is."""
    assert not value(("Relu",), ("Conv", REAL, ONES), number=1.0)[0]
    assert value(("Relu",), ("Conv", REAL, ONES), number=0.0)[0]
    assert not value(*NORMALISED, ("Clip", -1, 1), number=1.0)[0]
    assert value(*NORMALISED, ("Clip", -1, 1), number=0.25)[0]


def test_signs_of_constants_in_subtraction() -> None:
    """Breaks if x - c and c - x are followed with the wrong sign: Relu hits 0 exactly, and only there."""
    assert not value(*NORMALISED, ("Relu",), ("Sub", vector(ONES)), number=-1.0)[0]
    assert value(*NORMALISED, ("Relu",), ("Sub", vector(ONES)), number=1.0)[0]


def test_a_long_walk_ends() -> None:
    """Breaks if a deep chain of shortcuts takes exponential time."""
    steps = [step for _ in range(60) for step in (("Conv", SIGNS), ("Relu",), ("Add", "skip"))]
    assert not value(*steps)[0]
