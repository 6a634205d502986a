"""freeze_batch: a static batch, and everything that follows from it computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.ops.registry import DOMAIN
from bnn_deploy.passes.onnx.freeze_batch import freeze_batch
from tests.passes.onnx_models import model, node, run, small_network


def reshaping() -> onnx.ModelProto:
    """y = Reshape(x, [Shape(x)[0], -1]), as torch.export writes a flatten with a dynamic batch."""
    constants = {"rest": np.array([-1], np.int64), "zero": np.array([0], np.int64)}
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Concat", "n rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    return model(nodes, ["batch", 3, 4], constants, rank=2)


def input_shape(network: onnx.ModelProto) -> list[int]:
    (value,) = network.graph.input
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_batch_gets_its_value_and_shape_arithmetic_disappears() -> None:
    """Breaks: later passes meet Shape, Gather and dynamic dimensions."""
    frozen = freeze_batch(reshaping(), 5)
    assert input_shape(frozen) == [5, 3, 4]
    assert [n.op_type for n in frozen.graph.node] == ["Reshape"]


def test_small_constant_nodes_become_initializers() -> None:
    """Breaks: later passes meet a threshold or slope that is no constant, because the file keeps it in a node."""
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    nodes = [helper.make_node("Constant", [], ["half"], value=half), node("Add", "x half", "y")]
    frozen = freeze_batch(model(nodes, ["batch", 3, 4], {}, rank=3), 1)
    assert [n.op_type for n in frozen.graph.node] == ["Add"]
    assert [numpy_helper.to_array(tensor).tolist() for tensor in frozen.graph.initializer] == [[0.5]]


def test_function_is_kept() -> None:
    """Breaks: constant folding changes the network."""
    network = small_network()
    # Numbers of few bits, so that float32 sums are exact except for the mean over 64 pixels, a power of two.
    x = np.random.default_rng(0).integers(-4, 5, (2, 3, 8, 8)).astype("float32")
    np.testing.assert_array_equal(run(freeze_batch(network, 2), x), run(network, x))


def test_binary_nodes_and_their_names_survive() -> None:
    """Breaks: the optimiser inlines or folds the binary operators, and nothing is binary any more."""
    frozen = freeze_batch(small_network(), 1)
    found = {(n.op_type, n.name) for n in frozen.graph.node if n.domain == DOMAIN}
    assert found == {("Sign", "block.sign"), ("BinaryConv", "block.binary")}


def test_the_model_given_is_not_changed() -> None:
    """Breaks: compiling twice with different batches fails the second time."""
    network = small_network()
    content = network.SerializeToString()
    freeze_batch(network, 3)
    assert network.SerializeToString() == content


def test_the_same_fixed_batch_is_fine() -> None:
    """Breaks: files exported with a fixed batch cannot be compiled."""
    assert input_shape(freeze_batch(small_network(batch=4), 4)) == [4, 3, 8, 8]


def test_another_fixed_batch_is_refused_with_both_numbers() -> None:
    """Breaks: a bundle reads inputs of another size than the network was exported for."""
    with pytest.raises(ModelFileError, match=r"Input 'x' has a fixed batch of 4, asked for 2: compile with --batch 4"):
        freeze_batch(small_network(batch=4), 2)
