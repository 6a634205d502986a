"""Tensors in other files: read from the model's folder and from nowhere else, and only as many bytes as were announced."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnn_deploy.errors import ModelFileError
from bnn_deploy.onnx_files.external_data import embed_external_data
from bnn_deploy.onnx_files.reading import load_onnx

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


def plain_model() -> onnx.ModelProto:
    """A MatMul with an initializer and an Add with a Constant node."""
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["sums"]),
        helper.make_node("Constant", [], ["bias"], value=numpy_helper.from_array(WEIGHTS[0], "bias_value")),
        helper.make_node("Add", ["sums", "bias"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "main", inputs, outputs, [numpy_helper.from_array(WEIGHTS, "weights")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def point(tensor: onnx.TensorProto, **fields: str) -> None:
    """Let ``tensor`` be stored elsewhere."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)


def save_pointing(folder: Path, **fields: str) -> Path:
    """The model with its weights stored as ``fields`` say; returns its path."""
    model = plain_model()
    point(model.graph.initializer[0], **fields)
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_are_embedded(tmp_path: Path) -> None:
    """Breaks when files as torch.onnx.export writes them lose or misplace weights, in attributes too."""
    path = tmp_path / "model.onnx"
    onnx.save_model(
        plain_model(),
        path,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "model.onnx.data").stat().st_size >= WEIGHTS.nbytes + WEIGHTS[0].nbytes
    assert load_onnx(path) == plain_model()


def test_offset_and_folders_inside(tmp_path: Path) -> None:
    """Breaks when a part of a file in a subfolder, or one behind a link that stays inside, cannot be read."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "all.bin").write_bytes(b"\xff" * 5 + WEIGHTS.tobytes() + b"\xff")
    (tmp_path / "link.bin").symlink_to("parts/all.bin")
    for location in ("parts/all.bin", "link.bin", "./parts/all.bin"):
        model = load_onnx(save_pointing(tmp_path, location=location, offset="5", length="48"))
        np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHTS)
    # The length may be left out.
    model = load_onnx(save_pointing(tmp_path, location="parts/all.bin", offset="5"))
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHTS)


def test_four_bit_types(tmp_path: Path) -> None:
    """Breaks when the bytes of types that share bytes are counted wrongly."""
    model = plain_model()
    tensor = helper.make_tensor("nibbles", TensorProto.INT4, [5], [1, -2, 3, -4, 5])
    values = numpy_helper.to_array(tensor)
    (tmp_path / "nibbles.bin").write_bytes(tensor.raw_data or bytes(tensor.int32_data))
    point(tensor, location="nibbles.bin", length="3")
    tensor.ClearField("int32_data")
    model.graph.initializer.append(tensor)
    embed_external_data(tmp_path / "model.onnx", model, limit=3)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[1]), values)


@pytest.mark.parametrize(
    "location",
    [
        *("../secret.bin", "parts/../../secret.bin", "{outside}/secret.bin", "escape.bin", "door/secret.bin", ""),
        *("..\\secret.bin", "C:\\secret.bin", "\\secret.bin", "a\0b"),
    ],
)
def test_nothing_outside_the_folder_is_read(location: str, tmp_path: Path) -> None:
    """Breaks when a file from the net can read any file of the user into the model."""
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "escape.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "door").symlink_to(tmp_path)
    path = save_pointing(inside, location=location.format(outside=tmp_path))
    with pytest.raises(ModelFileError, match=r"'weights' is stored in .* not a plain path inside the model's folder"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"location": "none.bin"}, "'none.bin', which does not exist"),
        ({"location": "short.bin"}, "from byte 0 to 48, but that file has only 47 bytes"),
        ({"location": "good.bin", "offset": "1"}, "from byte 1 to 49, but that file has only 48 bytes"),
        ({"location": "good.bin", "offset": "9" * 19}, "but that file has only 48 bytes"),
        ({"location": "good.bin", "length": "44"}, r"with 44 bytes, but its shape \(4, 3\) and type take 48"),
        ({"location": "good.bin", "offset": "-4"}, "the offset '-4', which is no number of bytes"),
        ({"location": "good.bin", "length": "4" * 40}, "the length '444.* no number of bytes"),
        ({"location": "good.bin", "length": "four"}, "the length 'four'"),
        ({"location": "folder"}, "which is not a file|cannot be read"),
        ({"location": "pipe"}, "which is not a file"),
        ({"location": "circle"}, "circle|does not exist|cannot be read"),
        ({"location": "x" * 5000}, "cannot be read|circle"),
    ],
)
def test_bad_places_inside_the_folder(fields: dict[str, str], message: str, tmp_path: Path) -> None:
    """Breaks when missing, short or odd files hang the reader, or give anything but one sentence."""
    (tmp_path / "good.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "short.bin").write_bytes(WEIGHTS.tobytes()[:-1])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ModelFileError, match=message) as caught:
        load_onnx(save_pointing(tmp_path, **fields))
    assert "'weights'" in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_are_settled_before_reading(tmp_path: Path) -> None:
    """Breaks when many tensors that share a small file, or one of absurd shape, can fill the memory."""
    (tmp_path / "good.bin").write_bytes(WEIGHTS.tobytes())
    model = plain_model()
    for index in range(10):
        tensor = model.graph.initializer.add(name=f"copy_{index}", data_type=TensorProto.FLOAT, dims=[4, 3])
        point(tensor, location="good.bin")
    with pytest.raises(ModelFileError, match="480 bytes of tensors in other files, but a model may have at most 479"):
        embed_external_data(tmp_path / "model.onnx", model, limit=479)
    embed_external_data(tmp_path / "model.onnx", model, limit=480)

    path = save_pointing(tmp_path, location="good.bin")
    huge = onnx.load(path, load_external_data=False)
    huge.graph.initializer[0].dims[:] = [2**40, 2**40]
    path.write_bytes(huge.SerializeToString())
    with pytest.raises(ModelFileError, match="may have at most"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data_type", 77, "'weights' has the unknown type 77"),
        ("data_type", 0, "'weights' has the unknown type 0"),
        ("data_type", TensorProto.STRING, "'weights' holds strings"),
        ("dims", [-4, 3], r"the shape \(-4, 3\) of tensor 'weights' is negative"),
    ],
)
def test_bad_descriptions(field: str, value: object, message: str, tmp_path: Path) -> None:
    """Breaks when a tensor whose size cannot be known is read all the same."""
    model = plain_model()
    (tmp_path / "good.bin").write_bytes(WEIGHTS.tobytes())
    tensor = model.graph.initializer[0]
    point(tensor, location="good.bin")
    if field == "dims":
        tensor.dims[:] = value  # type: ignore[index]
    else:
        tensor.data_type = value  # type: ignore[assignment]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=message):
        load_onnx(tmp_path / "model.onnx")
