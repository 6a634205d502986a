"""Weights in .npz files: both namings, compressed or not, and no bombs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnn_deploy.errors import ModelFileError
from bnn_deploy.weights.load_checkpoint import load_checkpoint
from bnn_deploy.weights.numpy_file import read_npz
from bnn_deploy.weights.read_state_dict import read_state_dict
from tests.weights.mindspore_files import FLOATS, mindspore_names, same, tiny, written
from tests.weights.numpy_files import npy, npz


@pytest.mark.parametrize("naming", ["mindspore", "pytorch"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_loads(tmp_path: Path, save: Callable[..., None], naming: str) -> None:
    """Breaks if .npz files of either naming, compressed or not, lose or exchange a tensor."""
    source, target = tiny(), tiny(seed=4)
    state = mindspore_names(source.state_dict()) if naming == "mindspore" else source.state_dict()
    save(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    assert load_checkpoint(target, tmp_path / "w.npz").from_mindspore == (naming == "mindspore")
    assert same(source, target)


ARRAY = npy(FLOATS.numpy())


def two_of_a_name() -> bytes:
    return npz({"w.npy": ARRAY, "v.npy": ARRAY}).replace(b"v.npy", b"w.npy")


def needing_a_newer_zip() -> bytes:
    """An archive whose directory says that it takes version 20.0 of the format to unpack it."""
    content = bytearray(npz({"w.npy": ARRAY}))
    content[content.index(b"PK\x01\x02") + 6] = 200
    return bytes(content)


def with_wrong_checksum() -> bytes:
    """A compressed array that unpacks well, to other bytes than were packed."""
    content = bytearray(npz({"w.npy": ARRAY}, zipfile.ZIP_DEFLATED))
    for header in (b"PK\x01\x02", b"PK\x03\x04"):
        content[content.index(header) + (16 if header[2] == 1 else 14)] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npz({"w.npy": npy(np.zeros(2**20))}, zipfile.ZIP_DEFLATED), "unpacks to"),
        (npz({"w.npy": npy(np.array([{"a": 1}], dtype=object))}), "holds object instead of numbers"),
        (npz({"w.npy": npy(np.array(["text"]))}), "instead of numbers"),
        (npz({"w.npy": npy(np.zeros(2, np.complex64))}), "instead of numbers"),
        (npz({"w.npy": ARRAY.replace(b"(2, 3)", b"(9, 9)")}), "24 bytes for the shape"),
        (npz({"w.npy": ARRAY.replace(b"(2, 3), ", b"(-2,-3),")}), "bytes for the shape"),
        (npz({"w.npy": npy(np.zeros((0, 3), np.float32))}), "0 bytes for the shape"),
        (npz({"w.npy": b"no array"}), "damaged .npz"),
        (npz({"w.npy": ARRAY.replace(b"NUMPY\x01", b"NUMPY\x02")}), "format version"),
        (npz({"w.npy": ARRAY}).replace(FLOATS.numpy().tobytes(), bytes(24)), "Bad CRC-32"),
        (with_wrong_checksum(), "Bad CRC-32"),
        (needing_a_newer_zip(), "is not a checkpoint"),
        (two_of_a_name(), "two arrays of the same name"),
        (npz({"w.npy": ARRAY, "readme.txt": b"hello"}), "is not a checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_npz_files(tmp_path: Path, content: bytes, message: str) -> None:
    """Breaks if a damaged, lying or exploding archive is unpacked, or objects in it unpickled."""
    path = written(tmp_path / "w.npz", content)
    with pytest.raises(ModelFileError, match=message) as error:
        read_state_dict(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_npz_layouts(tmp_path: Path) -> None:
    """Breaks if Fortran order, big-endian numbers or a scalar change their values."""
    arrays = {
        "fortran": np.asfortranarray(FLOATS.numpy()),
        "big": FLOATS.numpy().astype(">f4"),
        "scalar": np.array(7),
        "half": FLOATS.numpy().astype(np.float16),
    }
    np.savez(tmp_path / "w.npz", **arrays)
    found = read_npz(tmp_path / "w.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert found[name].shape == array.shape
