"""A checkpoint that is damaged, forged or another run's is refused with one sentence, and nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bnn_deploy.errors import InputError, Interrupted
from bnn_deploy.training.checkpoint import NAME, Checkpoint, Finished, Progress, Sums, read_checkpoint
from bnn_deploy.training.data import TrainingData
from bnn_deploy.training.options import TrainOptions
from bnn_deploy.training.recipe import Recipe
from bnn_deploy.training.runs import train
from bnn_deploy.weights.safetensors_file import read_metadata, write_tensors
from tests.training.tiny_run import BINARY, CNN, RECIPE, At, options, tiny_data

KEY = "bnn_deploy.checkpoint"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, stopped after 2 optimizer steps of its second step's first epoch."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    came: list[int] = []
    report = At("binary", 1, 1, lambda: came.append(signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(RECIPE, tiny_data(), folder, replace(options(report, minutes=1000.0), stop=lambda: sum(came)))
    return folder


@pytest.fixture
def folder(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def refusal(
    folder: Path, recipe: Recipe = RECIPE, data: TrainingData | None = None, changed: TrainOptions | None = None
) -> str:
    """The sentence with which the checkpoint is refused; no file changes."""
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    with pytest.raises(InputError) as raised:
        train(recipe, data or tiny_data(), folder, changed or options(resume=True))
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    return str(raised.value)


def test_another_run(folder: Path) -> None:
    """If this fails, a run goes on with a state of another one, and what it learns is of neither."""
    data = tiny_data()
    longer = replace(RECIPE, steps=(CNN, replace(BINARY, epochs=3)))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("another model (bcdnet_tiny, not bimlp_tiny)", {"recipe": replace(RECIPE, model="bimlp_tiny")}),
        ("another variant (none, not released)", {"recipe": replace(RECIPE, variant="released")}),
        ("another number of classes (10, not 9)", {"data": replace(data, class_names=data.class_names[:9])}),
        ("another recipe", {"recipe": longer}),
        ("another images or names of classes", {"data": tiny_data(subset=16)}),
        ("another seed (3, not 4)", {"changed": options(resume=True, seed=4)}),
        ("another precision (float32, not float64)", {"changed": replace(options(resume=True), precision="float64")}),
        (
            "another teachers' weights",
            {"changed": replace(options(resume=True), teachers={"cnn": folder / "cnn.safetensors"})},
        ),
    ]
    for expected, arguments in cases:
        assert expected in refusal(folder, **arguments)


def test_another_environment_is_told(folder: Path) -> None:
    """If this fails, nobody knows why a resumed run has other last bits than its twin."""
    metadata = read_metadata(folder / NAME)
    state = json.loads(metadata[KEY])
    state["environment"]["version of PyTorch"] = "1.0\n"
    write_tensors(folder / NAME, load_file(folder / NAME), {KEY: json.dumps(state)})
    report = At("", 0, 0, lambda: None)
    with pytest.raises(Interrupted):
        train(RECIPE, tiny_data(), folder, replace(options(report, resume=True), stop=lambda: signal.SIGTERM))
    (note,) = [note for note in report.notes if "last bits" in note]
    assert f"another version of PyTorch ({torch.__version__}, before '1.0\\n')" in note


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 5_000, -1])
def test_cut_off(folder: Path, kept: int) -> None:
    """If this fails, a checkpoint on a disk that lost its end is read as if it were whole."""
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[:kept])
    assert "not a checkpoint that can be used" in refusal(folder)


def test_bombs(folder: Path) -> None:
    """If this fails, a file of a few bytes makes resuming allocate gigabytes, or fail with a traceback."""
    tensor = '{"model.x":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
    headers = [b"[" * 100_000, (tensor % (2**40, 2**42)).encode(), (tensor % (2**62, 4)).encode(), b"{}", b"\xff" * 64]
    for header in headers:
        (folder / NAME).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
        assert "not a checkpoint that can be used" in refusal(folder)
    for length in (2**63, 2**24 + 1, 1):
        with open(folder / NAME, "wb") as file:
            file.write(struct.pack("<Q", length) + b"{")
            file.truncate(2**26)  # a hole, which takes no space
        assert "its header would have" in refusal(folder)


def test_tensors_that_do_not_fit(folder: Path) -> None:
    """If this fails, NaN, a forgotten tensor or one of another shape goes on training silently."""
    metadata = read_metadata(folder / NAME)
    whole = load_file(folder / NAME)
    moment = next(name for name in sorted(whole) if name.endswith(".exp_avg") and whole[name].dim() > 1)
    signs = next(name for name in sorted(whole) if name.startswith("signs."))
    average = next(name for name in sorted(whole) if name.startswith("average.") and whole[name].dim() > 1)

    def nan(tensor: Tensor) -> Tensor:
        return torch.full_like(tensor, torch.nan)

    cases: list[tuple[str, Callable[[Tensor], Tensor | None], str]] = [
        (moment, nan, "are not finite"),
        (average, nan, "are not finite"),
        (moment, lambda tensor: None, f"lacks {moment}"),
        (signs, lambda tensor: None, f"lacks {signs}"),
        ("model.fc.weight", lambda tensor: torch.zeros(3), "F32 3, expected F32"),
        ("model.fc.weight", lambda tensor: tensor.double(), "is F64"),
        ("model.stranger", lambda tensor: torch.zeros(2), "unknown model.stranger"),
        ("optimizer.stranger.exp_avg", lambda tensor: torch.zeros(2), "unknown optimizer.stranger.exp_avg"),
    ]
    for name, change, expected in cases:
        changed = change(whole.get(name, torch.zeros(())))
        tensors = {key: tensor for key, tensor in whole.items() if key != name}
        write_tensors(folder / NAME, tensors if changed is None else {**tensors, name: changed}, metadata)
        assert expected in refusal(folder)


def test_numbers_that_cannot_be(folder: Path) -> None:
    """If this fails, a forged state makes training begin at an epoch that is none, or ends in a traceback."""
    metadata = read_metadata(folder / NAME)
    state = json.loads(metadata[KEY])
    assert state["progress"]["batch"] == 2
    progress: list[tuple[str, object, str]] = [
        ("epoch", -1, "progress.epoch is -1, expected a whole number"),
        ("epoch", 10**30, "progress.epoch is a number beyond 64 bits"),
        ("epoch", True, "progress.epoch is true"),
        ("epoch", 3, "it is after epoch 3"),
        ("batch", 4, "it is after epoch 0, batch 4 of 2 x 3"),
        ("batch", 1, "it has seen 10 images"),
        ("seconds", float("nan"), "progress.seconds is nan"),
        ("loss_scale", "1", "progress.loss_scale is '1', expected a number"),
        ("sums", {**state["progress"]["sums"], "loss": float("inf")}, "progress.sums.loss is inf"),
        ("sums", {**state["progress"]["sums"], "correct": 11}, "it has seen 10 images"),
        ("sums", [], "progress.sums is a list of 0, expected an object"),
        ("finished", {}, "progress.finished is an object of 0, expected a list"),
        ("finished", [], "not a checkpoint that can be used"),
        ("finished", [{**state["progress"]["finished"][0], "name": "../../x"}], "not the recipe's"),
        ("finished", [{**state["progress"]["finished"][0], "accuracy": 1.5}], "progress.finished[0].accuracy is 1.5"),
    ]
    for name, value, expected in progress:
        forged = {**state, "progress": {**state["progress"], name: value}}
        write_tensors(folder / NAME, {}, {KEY: json.dumps(forged)})
        assert expected in refusal(folder), name
    for text in (
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 5_000,
        json.dumps({**state, "identity": 5}),
    ):
        write_tensors(folder / NAME, {}, {KEY: text})
        assert "not a checkpoint that can be used" in refusal(folder)


def test_weights_of_a_finished_step_that_changed(folder: Path) -> None:
    """If this fails, the run goes on with another teacher than it began with."""
    path = folder / "cnn.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{path}: is missing or not what the step 'cnn' wrote" in refusal(folder)
    path.unlink()
    assert f"{path}: is missing or not what the step 'cnn' wrote" in refusal(folder)


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    """If this fails, sums of an epoch lose bits in the file, so that a resumed log differs in its last digits."""
    sums = Sums(loss=0.1 + 0.2, cross_entropy=1 / 3, divergence=5e-324, correct=2**53, images=2**53, seconds=1e300)
    finished = (Finished("a", "0" * 64, 1 / 7),)
    progress = Progress(finished, epoch=7, batch=9, sums=sums, seconds=2 / 3, loss_scale=0.5, scale_growth=3)
    identity = dict.fromkeys(
        ("model", "variant", "classes", "input_size", "recipe", "data", "seed", "precision", "teachers"), "ä"
    )
    written = Checkpoint(identity, {"version": "1"}, progress)
    written.write(tmp_path / NAME, {})
    assert read_checkpoint(tmp_path / NAME, {"version": "2"}) == written
