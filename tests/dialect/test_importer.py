"""The importer: what onnxruntime computes is what the Relax module means, and layer names come along."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tvm import relax

from bnn_deploy.dialect.importer import _binary_operator, import_onnx
from bnn_deploy.errors import CompileError, ModelFileError
from bnn_deploy.passes.relax.expressions import main_bindings
from tests.passes.evaluate import evaluate
from tests.passes.networks import operators
from tests.passes.onnx_models import model, node, packed, run, small_network

GEOMETRY = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1], "group": 1, "in_channels": 12}
IMAGE = (2, 12, 5, 6)
QUARTERS = (np.random.default_rng(0).integers(-4, 5, (7, 6)) / 4).astype("float32")
ZERO = np.zeros(1, "float32")


def imported_value(network: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    module = import_onnx(network)
    relax.analysis.well_formed(module)
    return evaluate(module, x, precision=np.float32)


def image(shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    """Multiples of 1/4 with zeros of both signs, halves and NaN."""
    x = (np.random.default_rng(1).integers(-6, 7, shape) / 4).astype("float32")
    x.flat[:5] = [0.0, -0.0, 0.5, -0.5, np.nan]
    return x


THRESHOLD = QUARTERS.reshape(-1)[:12].reshape(1, 12, 1, 1)
BINARY = {
    "Sign": ([node("Sign", "x t", "y", zero=-1)], {"t": THRESHOLD}),
    "Sign, zero is +1": ([node("Sign", "x t", "y", zero=1)], {"t": THRESHOLD}),
    "Sign, zero is 0": ([node("Sign", "x t", "y", zero=0)], {"t": THRESHOLD}),
    "Sign without attribute": ([node("Sign", "x t", "y")], {"t": ZERO}),
    "Ternary": ([node("Ternary", "x", "y")], {}),
    "BinaryConv": (
        [node("Sign", "x t", "s"), node("BinaryConv", "s w", "y", **GEOMETRY)],
        {"t": ZERO, "w": packed(7, 6 * 12)},
    ),
    "BinaryConv of ternary": (
        [node("Ternary", "x", "s"), node("BinaryConv", "s w", "y", **GEOMETRY)],
        {"w": packed(7, 6 * 12)},
    ),
    "BinaryConv of a sign that is 0 at zero": (
        [node("Sign", "x t", "s", zero=0), node("BinaryConv", "s w", "y", **GEOMETRY)],
        {"t": THRESHOLD, "w": packed(7, 6 * 12)},
    ),
    "grouped BinaryConv": (
        [node("Sign", "x t", "s"), node("BinaryConv", "s w", "y", **(GEOMETRY | {"group": 3}))],
        {"t": ZERO, "w": packed(6, 6 * 4)},
    ),
    "TapScaledBinaryConv": (
        [node("Sign", "x t", "s"), node("TapScaledBinaryConv", "s w scale", "y", **GEOMETRY)],
        {"t": ZERO, "w": packed(7, 6 * 12), "scale": QUARTERS},
    ),
    "Gather of places in disorder": ([node("Gather", "x places", "y", axis=3)], {"places": np.array([5, 0, -1, 2])}),
    "Gather of every second": ([node("Gather", "x places", "y", axis=2)], {"places": np.array([-4, 3])}),
    "Gather of one": (
        [node("Gather", "x place", "z", axis=1), node("Unsqueeze", "z axis", "y")],
        {"place": np.array(-2), "axis": np.array([1])},
    ),
    "ai.onnx.Sign": ([node("ai.onnx.Sign", "x", "signs"), node("Abs", "signs", "y")], {}),
}


@pytest.mark.parametrize("name", BINARY)
def test_operators_mean_what_onnxruntime_computes(name: str) -> None:
    """Breaks: an attribute, the packing or the operator itself is read differently than the file defines it."""
    nodes, constants = BINARY[name]
    network = model(nodes, IMAGE, constants)
    x = image()
    if name == "ai.onnx.Sign":
        # The standard's Sign has sign(0) = 0 and must not be taken for ours; the evaluator knows no relax.sign.
        assert operators(import_onnx(network)) == ["relax.sign", "relax.abs"]
        return
    np.testing.assert_array_equal(imported_value(network, x), run(network, x))


def test_binary_linear() -> None:
    """Breaks: rows and features of a binary linear layer are confused."""
    nodes = [node("Sign", "x t", "s"), node("BinaryLinear", "s w", "y", in_features=12)]
    network = model(nodes, [2, 3, 12], {"t": ZERO, "w": packed(5, 12)}, rank=3)
    x = image((2, 3, 12))
    np.testing.assert_array_equal(imported_value(network, x), run(network, x))


def test_a_whole_network() -> None:
    """Breaks: standard operators between binary ones are imported differently than onnxruntime runs them."""
    network = small_network(2)
    x = np.random.default_rng(2).integers(-4, 5, (2, 3, 8, 8)).astype("float32")
    # All numbers are multiples of 2**-12 below 2**11: exact in float32 in any order.
    np.testing.assert_array_equal(imported_value(network, x), run(network, x))


def test_layer_names_are_kept() -> None:
    """Breaks: profile and validate cannot say which PyTorch layer a kernel computes."""
    module = import_onnx(small_network(1))
    names = {str(key): str(value) for key, value in module.attrs["layer_names"].items()}
    variables = {binding.var.name for binding in main_bindings(module["main"])}
    assert {"block.sign", "block.binary", "block.add", "block.prelu", "head"} <= set(names.values())
    assert {variable for variable, layer in names.items() if layer == "block.binary"} <= variables


def test_unsupported_operator_names_its_node() -> None:
    """Breaks: the user learns neither which operator nor which layer cannot be compiled."""
    network = model([node("Det", "x", "y", "head.determinant")], [1, 3, 3], {}, rank=1)
    with pytest.raises(ModelFileError, match=r"Node 'head.determinant' has operator 'ai.onnx.Det', .*not support"):
        import_onnx(network)


def test_node_that_tvm_cannot_import_is_named() -> None:
    """Breaks: a failure inside TVM's front end reaches the user as a traceback without the node."""
    network = model([node("BinaryConv", "x w", "y", "block.conv", **GEOMETRY)], [1, 3, 4], {"w": packed(7, 72)})
    with pytest.raises(CompileError, match=r"Node 'block.conv' \(operator BinaryConv\) could not be imported"):
        import_onnx(network)


def test_output_shape_of_a_transposed_convolution_is_refused() -> None:
    """Breaks: TVM, which does not look at output_shape, makes an image of another size."""
    attributes = {"strides": [2, 2], "output_shape": [8, 10]}
    nodes = [node("ConvTranspose", "x w", "y", "up", **attributes)]
    network = model(nodes, [1, 3, 4, 5], {"w": np.ones((3, 2, 3, 3), "float32")})
    with pytest.raises(CompileError, match=r"Node 'up' \(operator ConvTranspose\) .*output_shape is not supported"):
        import_onnx(network)


def test_contradicting_shapes_name_the_node() -> None:
    """Breaks: a damaged file crashes the compiler instead of giving a sentence."""
    network = model([node("MatMul", "x w", "y", "head")], [1, 3], {"w": np.ones((4, 2), "float32")}, rank=2)
    with pytest.raises(CompileError, match=r"Node 'head' \(operator MatMul\) .*3.* and .*4.* are not equal"):
        import_onnx(network)


def test_dynamic_size_is_refused() -> None:
    """Breaks: a dynamic image size crashes a later pass."""
    network = model([node("Abs", "x", "y")], [1, 3, "height", 8], {})
    with pytest.raises(ModelFileError, match=r"Input 'x' has shape \[1, 3, 'height', 8\].*fixed input size"):
        import_onnx(network)


@pytest.mark.parametrize("extra", ["input", "output"])
def test_exactly_one_input_and_output(extra: str) -> None:
    """Breaks: a second input is planned onto the first one's memory."""
    network = model([node("Abs", "x", "y"), node("Neg", "x", "z")], [1, 3], {}, rank=2)
    value = onnx.helper.make_tensor_value_info("z" if extra == "output" else "x2", onnx.TensorProto.FLOAT, [1, 3])
    getattr(network.graph, extra).append(value)
    found = "2 inputs and 1 outputs" if extra == "input" else "1 inputs and 2 outputs"
    with pytest.raises(ModelFileError, match=f"{found}, but the compiler takes exactly one"):
        import_onnx(network)


def test_the_model_given_is_not_changed() -> None:
    """Breaks: the statistics that follow see other operator names than the file has."""
    network = small_network(1)
    content = network.SerializeToString()
    import_onnx(network)
    assert network.SerializeToString() == content


def test_operator_without_a_branch_is_refused() -> None:
    """Breaks: who adds an operator and forgets the importer gets a message about something else."""
    with pytest.raises(NotImplementedError, match="no branch"):
        _binary_operator("MyShrink", [], {})
