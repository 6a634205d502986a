"""MindSpore's checkpoints: every form that MindSpore writes loads, and nothing else does."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bnn_deploy.errors import ModelFileError
from bnn_deploy.models.registry import build_model
from bnn_deploy.weights.load_checkpoint import load_checkpoint
from bnn_deploy.weights.mindspore_file import read_mindspore
from bnn_deploy.weights.mindspore_names import to_pytorch_names
from bnn_deploy.weights.read_state_dict import read_state_dict
from tests.models.test_authors_names import read_names
from tests.weights.mindspore_files import (
    FLOATS,
    checkpoint,
    field,
    mindspore_names,
    same,
    tensor_value,
    text_value,
    tiny,
    value,
    varint,
    with_crc,
    written,
)


def protobuf_message() -> type:
    """MindSpore's checkpoint.proto, declared to Google's protobuf."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="checkpoint.proto", package="mindspore", syntax="proto2")
    for message, fields in {
        "TensorProto": [
            ("dims", kinds.TYPE_INT64, kinds.LABEL_REPEATED, None),
            ("tensor_type", kinds.TYPE_STRING, kinds.LABEL_REQUIRED, None),
            ("tensor_content", kinds.TYPE_BYTES, kinds.LABEL_REQUIRED, None),
        ],
        "Value": [
            ("tag", kinds.TYPE_STRING, kinds.LABEL_REQUIRED, None),
            ("tensor", kinds.TYPE_MESSAGE, kinds.LABEL_REQUIRED, ".mindspore.TensorProto"),
        ],
        "Checkpoint": [("value", kinds.TYPE_MESSAGE, kinds.LABEL_REPEATED, ".mindspore.Value")],
    }.items():
        made = file.message_type.add(name=message)
        for number, (name, kind, label, type_name) in enumerate(fields, start=1):
            made.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mindspore.Checkpoint"))


def test_the_files_of_these_tests_are_protobuf() -> None:
    """Breaks if reader and test share a wrong idea of the format: Google's protobuf must write and read the same bytes."""
    message = protobuf_message()()
    for name, dims, kind, content in [("a", (2, 300), "Float32", bytes(2400)), ("b.é", (0,), "Int32", b"\1\2\3\4")]:
        entry = message.value.add(tag=name)
        entry.tensor.dims.extend(dims)
        entry.tensor.tensor_type, entry.tensor.tensor_content = kind, content
    ours = value("a", (2, 300), "Float32", bytes(2400)) + value("b.é", (0,), "Int32", b"\1\2\3\4")
    assert message.SerializeToString() == ours
    parsed = protobuf_message().FromString(tensor_value("w", FLOATS, piece_bytes=8))
    assert [list(entry.tensor.dims) for entry in parsed.value] == [[2, 3]] * 3


@pytest.mark.parametrize("form", ["plain", "pieces", "crc", "uneven pieces"])
def test_released_bimlp_loads(tmp_path: Path, form: str) -> None:
    """Breaks if a tensor is lost, exchanged, cut or misnamed in any form that MindSpore writes."""
    source, target = tiny(), tiny(seed=4)
    piece_bytes = {"pieces": 1000, "uneven pieces": 37}.get(form, 2**29)
    content = checkpoint(mindspore_names(source.state_dict()), piece_bytes)
    path = written(tmp_path / "w.ckpt", with_crc(content) if form == "crc" else content)
    report = load_checkpoint(target, path)
    assert same(source, target) and not same(source, tiny(seed=4))
    assert (report.ignored, report.zero_weights, report.from_mindspore) == ((), {}, True)


def test_training_state_is_passed_over_and_named(tmp_path: Path) -> None:
    """Breaks if what MindSpore saves by default with the weights is refused, loaded as weights, or not mentioned."""
    source, target = tiny(), tiny(seed=4)
    names = mindspore_names(source.state_dict())
    one = torch.ones(())
    state = {**names, "moments.head.weight": names["head.weight"] * 9, "moment1.norm.gamma": one.expand(64).clone()}
    state |= {"learning_rate": one, "global_step": torch.ones(1, dtype=torch.int32)}
    path = written(tmp_path / "w.ckpt", checkpoint(state) + text_value("note", "epoch 3"))
    report = load_checkpoint(target, path)
    assert same(source, target)
    assert sorted(report.ignored) == [
        "global_step",
        "learning_rate",
        "moment1.norm.gamma",
        "moments.head.weight",
        "note",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("moments.heads.weight", "1 unknown: moments.heads.weight"),
        ("ema.head.weight", "1 unknown: ema.head.weight"),
        ("head.gamma", "1 unknown: head.gamma"),
        ("extra", "1 unknown: extra"),
        ("norm.weight", "norm.weight twice"),
    ],
)
def test_nothing_is_guessed(tmp_path: Path, name: str, message: str) -> None:
    """Breaks if a name that is neither the model's nor known training state is dropped or taken for another."""
    state = {**mindspore_names(tiny().state_dict()), name: torch.zeros(64)}
    with pytest.raises(ModelFileError, match=message):
        load_checkpoint(tiny(), written(tmp_path / "w.ckpt", checkpoint(state)))


def test_misfits_are_listed_together(tmp_path: Path) -> None:
    """Breaks if a MindSpore file's missing and misshapen tensors are not reported at once, under the model's names."""
    state = mindspore_names(tiny().state_dict())
    del state["norm.gamma"]
    state["norm.beta"] = torch.zeros(3)
    with pytest.raises(ModelFileError) as error:
        load_checkpoint(tiny(), written(tmp_path / "w.ckpt", checkpoint(state)))
    assert "1 missing: norm.weight" in str(error.value) and "norm.bias is float 3, expected float 64" in str(
        error.value
    )


def test_names_of_the_authors() -> None:
    """Breaks if the released code's names for BiMLP-S, listed by its authors' names, are not those that are translated."""
    shapes = read_names("bimlp_s")
    pytorch = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    theirs = mindspore_names(pytorch)
    assert theirs["network.0.0.attn.fc_h_bn.moving_variance"].shape == (64,) and "patch_embed.norm.gamma" in theirs
    assert "network.0.0.weight" in theirs and "patch_embed.act.act.w" in theirs
    translation = to_pytorch_names(theirs, build_model("bimlp_s", variant="released"))
    assert set(translation.tensors) == {name for name in pytorch if "num_batches" not in name}
    assert all(tensor.shape == shapes[name] for name, tensor in translation.tensors.items())
    assert translation.training_state == ()


@pytest.mark.parametrize("name", ["bimlp_s", "bimlp_m"])
def test_full_size_models_load(tmp_path: Path, name: str) -> None:
    """Breaks if BiMLP-S or -M, with BatchNorm or with GroupNorm, cannot be loaded from a file of the released code."""
    source, target = build_model(name, variant="released"), build_model(name, variant="released")
    path = written(tmp_path / "w.ckpt", checkpoint(mindspore_names(source.state_dict()), piece_bytes=2**20))
    # torch.randn gives an exact 0 every few million numbers.
    load_checkpoint(target, path, zero_weights="-1")
    assert same(source, target)


@pytest.mark.parametrize(
    "kind", ["Float16", "BFloat16", "Float32", "Float64", "Int8", "Int64", "UInt8", "UInt16", "Bool"]
)
def test_types(tmp_path: Path, kind: str) -> None:
    """Breaks if a type that MindSpore writes is read with another size or meaning."""
    numbers = np.array([1, 0, 2])
    if kind == "BFloat16":
        # The upper half of a float32.
        content = (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    else:
        content = numbers.astype("uint8" if kind == "Bool" else kind.lower()).tobytes()
    tensors, _ = read_mindspore(written(tmp_path / "w.ckpt", value("w", (3,), kind, content)))
    assert tensors["w"].tolist() == [1, 0, 2] and tensors["w"].is_floating_point() == ("Float" in kind)


@pytest.mark.parametrize("dims", [(), (0,)])
def test_scalars(tmp_path: Path, dims: tuple[int, ...]) -> None:
    """Breaks if a scalar, written as dims [0] by older versions and without dims by newer ones, is not one number."""
    path = written(tmp_path / "w.ckpt", value("w", dims, "Float32", np.float32(2.5).tobytes()))
    tensor = read_mindspore(path)[0]["w"]
    assert tensor.shape == () and tensor.item() == 2.5


def test_packed_dimensions(tmp_path: Path) -> None:
    """Breaks if dims in protobuf's packed form, which a reader of proto2 must accept, are misread."""
    tensor = field(1, varint(2) + varint(300)) + field(2, b"Float32") + field(3, bytes(2400))
    path = written(tmp_path / "w.ckpt", field(1, field(1, b"w") + field(2, tensor)))
    assert read_mindspore(path)[0]["w"].shape == (2, 300)


GOOD = tensor_value("w", FLOATS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xd8\x5e\x3a\x7f" + bytes(60), "is encrypted"),
        (with_crc(GOOD)[:-1] + b"\0", "checksum"),
        (value("w", (2**40,), "Float32", b"1234"), "4 bytes, but its shape needs"),
        (value("w", (2**62, 8), "Float32", b"1234"), "4 bytes, but its shape needs"),
        (value("w", (2**64 - 1,), "Float32", b"1234"), "impossible dimensions"),
        (value("w", (1,) * 9, "Float32", b"1234"), "impossible dimensions"),
        (value("w", (2, 0), "Float32", b""), "no values"),
        (value("w", (1,), "Complex64", b"12345678"), "unknown type 'Complex64'"),
        (GOOD + tensor_value("v", FLOATS) + GOOD, "'w' occurs twice"),
        (value("w", (2,), "Float32", b"1234") + value("w", (2,), "Float16", b"1234"), "differ in shape or type"),
        (field(1, field(1, b"w") + field(3, b"")), "field 3, which is no tensor"),
        (field(1, field(1, b"w")), "no name or no tensor"),
        (field(1, field(1, b"\xff") + field(2, b"")), "not text"),
        (field(1, field(1, b"w") + field(2, field(2, b"Float32"))), "lacks its type or its values"),
        (b"\x0a" + varint(2**62), "are left"),
        (b"\x0a" + b"\xff" * 20, "without end"),
        (GOOD[:-1], "are left"),
        (GOOD + b"\x0b", "wire type 3"),
        (b"\nA text that begins with an empty line.\n", "is no MindSpore checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_mindspore_files(tmp_path: Path, content: bytes, message: str) -> None:
    """Breaks if an encrypted, damaged or lying file is read, or refused without saying what is wrong with it."""
    path = written(tmp_path / "w.ckpt", content)
    with pytest.raises(ModelFileError, match=message) as error:
        read_state_dict(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_of_empty_entries_stays_small(tmp_path: Path) -> None:
    """Breaks if a file of a million tiny entries takes many times its size in Python objects."""
    content = b"".join(value(f"{index}", (1,), "Int8", b"1") for index in range(110_000))
    path = written(tmp_path / "w.ckpt", content)
    with pytest.raises(ModelFileError, match="more than 100000 parameters"):
        read_mindspore(path)


def test_checksum_covers_everything(tmp_path: Path) -> None:
    """Breaks if a changed weight in a file with a checksum goes unnoticed."""
    content = bytearray(with_crc(GOOD))
    position = content.index(FLOATS.numpy().tobytes())
    content[position + 4] ^= 1
    assert zlib.crc32(bytes(content[:-17])) != zlib.crc32(GOOD)
    with pytest.raises(ModelFileError, match="checksum"):
        read_mindspore(written(tmp_path / "w.ckpt", bytes(content)))
