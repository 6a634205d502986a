"""Loading trained weights, and refusing everything that is not exactly that."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bnn_deploy.errors import ModelFileError
from bnn_deploy.models.checkpoint import load_checkpoint, read_state_dict
from bnn_deploy.models.registry import build_model


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def write(path: Path, state: dict[str, torch.Tensor], form: str) -> Path:
    if form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif form == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "nested":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    elif form == "model":
        torch.save({"model": state, "step": 1}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["plain", "legacy", "nested", "model", "safetensors"])
def test_weights_load_from_every_form(tmp_path: Path, form: str) -> None:
    """Fails if a supported file form lost or exchanged a tensor."""
    source, target = build_model("bcdnet_tiny"), build_model("bcdnet_tiny")
    load_checkpoint(target, write(tmp_path / "weights.pth", source.state_dict(), form))
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())


def test_counters_may_be_missing(tmp_path: Path) -> None:
    """Fails if weights converted from another framework needed PyTorch's training counters."""
    state = {name: value for name, value in small_model().state_dict().items() if "num_batches" not in name}
    load_checkpoint(small_model(), write(tmp_path / "weights.pt", state, "plain"))


def test_one_error_lists_every_misfit(tmp_path: Path) -> None:
    """Fails if a wrong name, a missing one or a wrong shape were guessed at, or reported one at a time."""
    state = small_model().state_dict()
    state["0.kernel"] = state.pop("0.weight")
    state["0.bias"] = torch.zeros(3)
    with pytest.raises(ModelFileError) as error:
        load_checkpoint(small_model(), write(tmp_path / "weights.pt", state, "plain"))
    for part in ("1 missing: 0.weight", "1 unknown: 0.kernel", "0.bias is float 3, expected float 2"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["0.weight"].fill_(float("nan")), "not finite"),
        (lambda s: s.update({"0.weight": s["0.weight"].long()}), "integer 2x1x3x3, expected float"),
        (lambda s: s.update({"0.weight": s["0.weight"].to_sparse()}), "not named tensors: 0.weight"),
        (lambda s: s.update(extra=3), "not named tensors: extra"),
        (lambda s: s.update({"module.0.bias": s["0.bias"]}), "both with and without"),
        (dict.clear, "no state dict"),
    ],
)
def test_bad_contents_are_refused(tmp_path: Path, change, message: str) -> None:
    """Fails if values or entries that cannot be weights reached the model."""
    state = dict(small_model().state_dict())
    change(state)
    with pytest.raises(ModelFileError, match=message):
        load_checkpoint(small_model(), write(tmp_path / "weights.pt", state, "plain"))


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("form", ["pickle", "torch", "legacy", "zip"])
def test_code_in_a_file_never_runs(tmp_path: Path, form: str) -> None:
    """Fails if opening an untrusted file could run code from it."""
    trap, path = Trap(tmp_path / "sprung"), tmp_path / "weights.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(trap))
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/other.pkl", pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(ModelFileError):
        read_state_dict(path)
    assert not trap.path.exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, world", b"PK\x03\x04 not really", b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Fails if an empty, text or garbage file raised anything but one clear error."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=name):
        read_state_dict(tmp_path / name)


def test_damaged_and_compressed_archives_are_refused(tmp_path: Path) -> None:
    """Fails if a truncated download or a zip bomb got as far as allocating tensors."""
    path = write(tmp_path / "weights.pt", small_model().state_dict(), "plain")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    with pytest.raises(ModelFileError):
        read_state_dict(tmp_path / "packed.pt")
    for size in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError):
            read_state_dict(path)


def test_missing_file(tmp_path: Path) -> None:
    """Fails if a mistyped path raised a bare OSError."""
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_state_dict(tmp_path / "nothing.pt")
