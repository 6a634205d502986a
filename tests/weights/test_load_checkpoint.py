"""Loading trained weights, and refusing everything that is not exactly that."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bnn_deploy.errors import ModelFileError
from bnn_deploy.models.layers import BinaryConv2d, BinaryLinear, FlatBinaryConv2d
from bnn_deploy.models.registry import build_model
from bnn_deploy.weights.load_checkpoint import load_checkpoint
from bnn_deploy.weights.read_state_dict import read_state_dict


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


@pytest.fixture(autouse=True)
def same_weights_in_every_run() -> None:
    """torch.randn gives an exact 0 every few million numbers, which load_checkpoint refuses."""
    torch.manual_seed(1)


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


@pytest.mark.parametrize(
    ("key", "beside"),
    [
        # What liuzechun/ReActNet's save_checkpoint writes, from DataParallel.
        ("state_dict", {"epoch": 120, "best_top1_acc": 69.4}),
        # What the solver of Sense-GVT/BCDNet writes, from DistModule.
        ("model", {"last_iter": 5, "ema": {"decay": 0.99, "ema_state_dict": {"module.fc.bias": torch.zeros(10)}}}),
    ],
)
def test_files_of_the_authors_training_code(tmp_path: Path, key: str, beside: dict[str, object]) -> None:
    """Fails if a checkpoint with optimizer state and counters beside the weights is refused, or these go unmentioned."""
    source, target = build_model("bcdnet_tiny"), build_model("bcdnet_tiny")
    optimizer = torch.optim.Adam(source.parameters())
    sum(parameter.sum() for parameter in source.parameters()).backward()
    optimizer.step()
    weights = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({**beside, "optimizer": optimizer.state_dict(), key: weights}, tmp_path / "checkpoint.pth.tar")
    report = load_checkpoint(target, tmp_path / "checkpoint.pth.tar")
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())
    assert set(report.ignored) == {*beside, "optimizer"} and not report.from_mindspore


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("stranger", "name"),
    [(np.float64(71.8), "multiarray.scalar"), (np.zeros(3), "multiarray._reconstruct"), (small_model(), "Sequential")],
    ids=["numpy scalar", "numpy array", "module"],
)
def test_what_pytorch_refuses_is_named(tmp_path: Path, stranger: object, name: str, zipped: bool) -> None:
    """Fails if a file with, say, its accuracy as a numpy number is refused without saying what it is and what to do."""
    content = {"state_dict": small_model().state_dict(), "best_top1_acc": stranger}
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelFileError) as error:
        read_state_dict(tmp_path / "weights.pt")
    assert name in str(error.value) and "torch.load(…, weights_only=False)" in str(error.value)
    assert "\n" not in str(error.value)


def test_zero_weights_are_the_users_choice(tmp_path: Path) -> None:
    """Fails if weights of exactly 0 in binary layers are miscounted, or silently get a sign, or others are counted."""

    def make(value: float) -> nn.Module:
        layers = {
            "a": BinaryConv2d(3, 4, 3),
            "b": FlatBinaryConv2d(4, 4),
            "c": BinaryLinear(8, 5),
            "d": nn.Conv2d(4, 4, 1),
        }
        model = nn.ModuleDict(layers)
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        return model

    state = make(0.5).state_dict()
    for name, zero, count in [("a.weight", 0.0, 1), ("b.weights", -0.0, 2), ("c.weight", 0.0, 3), ("d.weight", 0.0, 4)]:
        state[name].view(-1)[:count] = zero
    path, target = write(tmp_path / "weights.pt", state, "plain"), make(0.25)
    with pytest.raises(
        ModelFileError, match=r"6 binary weights that are exactly 0 \(1 in a, 2 in b, 3 in c\)"
    ) as error:
        load_checkpoint(target, path)
    assert "--zero-weights -1" in str(error.value)
    assert all(bool((parameter == 0.25).all()) for parameter in target.parameters() if parameter.dim() > 1)
    assert load_checkpoint(target, path, zero_weights="-1").zero_weights == {"a": 1, "b": 2, "c": 3}
    assert target["c"].binary_weight().flatten()[:4].tolist() == [-1, -1, -1, 1]


def test_values_too_large_for_the_model(tmp_path: Path) -> None:
    """Fails if a float64 value that is infinite as float32 reached the model."""
    state = {
        name: value.double() if value.is_floating_point() else value
        for name, value in small_model().state_dict().items()
    }
    state["1.bias"][0] = 1e300
    with pytest.raises(ModelFileError, match=r"not finite: 1\.bias"):
        load_checkpoint(small_model(), write(tmp_path / "weights.pt", state, "plain"))


def test_messages_stay_readable(tmp_path: Path) -> None:
    """Fails if a file can fill the terminal with a name, or send it control characters."""
    state = {"\x1b[2J" + "x" * 10_000: torch.zeros(1)}
    with pytest.raises(ModelFileError) as error:
        load_checkpoint(small_model(), write(tmp_path / "weights.pt", state, "plain"))
    assert len(str(error.value)) < 1000 and str(error.value).isprintable()


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


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.ckpt", "weights.npz"])
@pytest.mark.parametrize("content", [b"", b"hello, world", b"PK\x03\x04 not really", b"\xff" * 100, b"\x0a"])
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
