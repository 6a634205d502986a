"""Files from anywhere: each bad one gets one sentence, and nothing crashes, hangs or reads another file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.binary_layers import require_binary
from bnn_deploy.onnx_files.reading import load_onnx
from bnn_deploy.ops.registry import DOMAIN, STANDARD_OPSET
from tests.onnx_files.good_model import good_model, node, tensor


def load_bytes(content: bytes, folder: Path) -> onnx.ModelProto:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return load_onnx(path)


def load_changed(change: Callable[[onnx.ModelProto], object], folder: Path) -> onnx.ModelProto:
    model = good_model()
    change(model)
    return load_bytes(model.SerializeToString(), folder)


def test_a_good_file_loads(tmp_path: Path) -> None:
    """Breaks when the checks refuse a correct file, which would void every other test here."""
    model = load_changed(lambda model: None, tmp_path)
    assert model == good_model()
    require_binary(model, "model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just some words\nin lines\n", "text file"),
        (b"{}", "text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX model"),
        (good_model().SerializeToString()[:-100], "truncated or damaged|is not valid ONNX"),
        (good_model().SerializeToString()[:100], "truncated or damaged"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "without a graph"),
        (good_model().SerializeToString().replace(b"layer.1/Mul", b"layer\xff1/Mul"), "names that are no text"),
        (good_model().SerializeToString().replace(b"threshold", b"\xffhreshold"), "names that are no text"),
    ],
)
def test_what_is_no_model(content: bytes, message: str, tmp_path: Path) -> None:
    """Breaks when a file that is no ONNX model gets a traceback or a misleading sentence."""
    with pytest.raises(ModelFileError, match=message) as caught:
        load_bytes(content, tmp_path)
    assert "model.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    """Breaks when a wrong path gives an OSError."""
    with pytest.raises(ModelFileError, match="does not exist"):
        load_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="is not a file"):
        load_onnx(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Breaks when flipped or missing bytes raise anything but ModelFileError, in loading or in the checks after it."""
    content = bytearray(good_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    try:
        require_binary(load_bytes(bytes(content), tmp_path_factory.mktemp("damaged")))
    except ModelFileError as error:
        assert str(error)


def _huge(model: onnx.ModelProto) -> None:
    weights = tensor(model, "scale")
    del weights.dims[:]
    weights.dims.extend([2**40, 2**40])


def _negative(model: onnx.ModelProto) -> None:
    tensor(model, "scale").dims[0] = -3


def _recursive(model: onnx.ModelProto) -> None:
    model.functions[0].node.add(op_type="Sign", domain=DOMAIN, input=["X", "threshold"], output=["again"])


def _explosive(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("", STANDARD_OPSET), helper.make_opsetid("x", 1)]
    for level in range(40):
        calls = [helper.make_node(f"F{level + 1}", ["a"], [out], domain="x") for out in ("b", "c")]
        model.functions.append(helper.make_function("x", f"F{level}", ["a"], ["b"], calls, opsets))
    model.functions.append(
        helper.make_function("x", "F40", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], opsets)
    )
    model.opset_import.append(helper.make_opsetid("x", 1))
    model.graph.node.insert(0, helper.make_node("F0", ["input"], ["unused"], domain="x"))


def _constant_input(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 10), np.float32), "input"))


def _float_weights(model: onnx.ModelProto) -> None:
    tensor(model, "W").CopyFrom(numpy_helper.from_array(np.ones((3, 10), np.float32), "W"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_huge, "'scale' do not match its shape"),
        (_negative, "'scale' do not match its shape"),
        (lambda m: setattr(tensor(m, "scale"), "raw_data", b"\0" * 8), "'scale' do not match its shape"),
        (lambda m: setattr(tensor(m, "scale"), "data_type", 77), "'scale' do not match its shape"),
        (_recursive, "bnn_deploy::Sign calls itself"),
        (_explosive, "more than 1000000 nodes"),
        (lambda m: m.graph.ClearField("input"), "without inputs or outputs"),
        (lambda m: setattr(m.opset_import[1], "version", 2), "version 2 .* this bnn-deploy knows only version 1"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "version 99 .*'ai.onnx', but this onnx .* knows only"),
        (_constant_input, "inputs are all constants"),
        (lambda m: setattr(node(m, "layer.1"), "op_type", "BinaryDream"), "BinaryDream node 'layer.1' is no operator"),
        (lambda m: node(m, "layer.1").input.append("scale"), "'layer.1' needs the inputs X, W and one output"),
        (lambda m: node(m, "layer.1").attribute.pop(), "'layer.1' lacks the attribute 'in_features'"),
        (_float_weights, "'layer.1': W must be UINT8 .* found FLOAT"),
        (lambda m: node(m, "cut").input.__setitem__(0, "nowhere"), "is not valid ONNX"),
        (lambda m: setattr(m, "ir_version", 99), "is not valid ONNX"),
        (lambda m: m.opset_import.pop(0), "is not valid ONNX"),
    ],
)
def test_bad_models(change: Callable[[onnx.ModelProto], object], message: str, tmp_path: Path) -> None:
    """Breaks when a model that is unsafe, malformed or too new is accepted, or its error does not name the culprit."""
    with pytest.raises(ModelFileError, match=message):
        load_changed(change, tmp_path)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_among_the_inputs(ir_version: int, tmp_path: Path) -> None:
    """Breaks when weights that old exporters list as inputs stay ones that the user would have to feed."""
    weights = numpy_helper.from_array(np.ones((4, 2), np.float32), "weights")
    inputs = [
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, [4, 2]),
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weights"], ["logits"])], "main", inputs, outputs, [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=ir_version)
    loaded = load_bytes(model.SerializeToString(), tmp_path)
    assert [value.name for value in loaded.graph.input] == ["input"]
    assert loaded.graph.initializer == model.graph.initializer
    # IR version 3 wants every initializer to be an input.
    assert loaded.ir_version == max(ir_version, 4)


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "finn"])
@pytest.mark.parametrize("declared", [False, True])
def test_qonnx_domains(domain: str, declared: bool, tmp_path: Path) -> None:
    """Breaks when files of Brevitas and FINN are refused for an operator set that they do not declare."""

    def add_quantiser(model: onnx.ModelProto) -> None:
        model.graph.node.insert(
            0, helper.make_node("BipolarQuant", ["input", "threshold"], ["unused"], name="quantiser", domain=domain)
        )
        if declared:
            model.opset_import.append(helper.make_opsetid(domain, 2))

    loaded = load_changed(add_quantiser, tmp_path)
    versions = [entry.version for entry in loaded.opset_import if entry.domain == domain]
    assert versions == [2 if declared else 1]


def test_other_domains_must_be_declared(tmp_path: Path) -> None:
    """Breaks when the exception made for QONNX lets in operators that nobody knows."""
    with pytest.raises(ModelFileError, match=r"is not valid ONNX.*com\.example"):
        load_changed(lambda model: setattr(node(model, "cut"), "domain", "com.example"), tmp_path)
