"""What a model is trained and tested on, from digits and from folders, and in which batches."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bnn_deploy.data.digits import load_digits_split
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import InputError, ToolError
from bnn_deploy.metadata.entries import CLASS_NAMES, PREPROCESSING
from bnn_deploy.metadata.preprocessing import digits
from bnn_deploy.models.registry import MODELS
from bnn_deploy.training.data import TrainingData, open_training_data
from bnn_deploy.training.loader import TrainingBatch, batches_per_epoch, test_batches, training_batches
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.seeds import seed_of
from bnn_deploy.training.step import Step

ONE = Processes.single()
STEP = Step("binary", epochs=1, batch_size=4, learning_rate=1.0)
CLASSES = ("ant", "bee", "cat")


def put(path: Path, seed: int, size: tuple[int, int] = (11, 9)) -> None:
    """A picture of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def fill(folder: Path, counts: dict[str, int], first: int = 0) -> Path:
    """So many pictures in the sub-folder of each class."""
    for name, count in counts.items():
        for number in range(first, first + count):
            put(folder / name / f"{number:03}.png", number)
    return folder


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with train and val."""
    fill(tmp_path / "pictures" / "train", {"ant": 6, "bee": 5, "cat": 4})
    fill(tmp_path / "pictures" / "val", {"ant": 2, "bee": 3, "cat": 2}, first=100)
    return tmp_path / "pictures"


def opened(folder: Path, **options: object) -> TrainingData:
    return open_training_data(folder, "bimlp_tiny", **options)


def epoch_of(data: TrainingData, step: Step = STEP, **options: object) -> list[TrainingBatch]:
    return list(training_batches(data, step, **{"seed": 0, "epoch": 0, "processes": ONE, **options}))


def evaluated(data: TrainingData, **options: object) -> tuple[np.ndarray, np.ndarray]:
    batches = list(test_batches(data.test, **{"batch_size": 7, "processes": ONE, **options}))
    return torch.cat([images for images, _ in batches]).numpy(), torch.cat([labels for _, labels in batches]).numpy()


def validated(data: TrainingData, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images that `validate` gives to a model exported with the preprocessing and class names of ``data``."""
    metadata = {PREPROCESSING: data.preprocessing.to_json(), CLASS_NAMES: json.dumps(data.class_names)}
    batches = list(open_dataset(source, data.preprocessing.shape, len(data.class_names), metadata).batches(50))
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def test_digits_of_the_tiny_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if training tests on other bits than `validate`, or bimlp_tiny no longer gets those it always had."""
    monkeypatch.chdir(tmp_path)
    x_train, y_train, x_test, y_test = load_digits_split()
    small = open_training_data(Path("digits"), "bimlp_tiny")
    assert same_bits(np.stack([small.train.prepared(index) for index in range(len(x_train))]), x_train)
    assert same_bits(evaluated(small)[0], x_test)
    large = open_training_data(Path("digits"), "bcdnet_tiny")
    assert large.preprocessing == digits(32, "RGB") and large.class_names == tuple("0123456789")
    for data in (small, large):
        images, labels = validated(data, Path("digits"))
        assert same_bits(evaluated(data)[0], images) and same_bits(evaluated(data)[1], labels)
        assert same_bits(data.train.labels, y_train) and same_bits(labels, y_test)
    # Written down once more: pixels in 0..1, made larger, on three channels, and to -1..1 in float32.
    pixels = (x_test[7, 0] + 1) / 2
    larger = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    assert same_bits(large.test.prepared(7), np.repeat(((larger - np.float32(0.5)) / np.float32(0.5))[None], 3, axis=0))


@pytest.mark.parametrize("name", MODELS)
def test_digits_for_every_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a model cannot be trained on the digits, or gets images of another shape than it takes."""
    monkeypatch.chdir(tmp_path)
    data = open_training_data(Path("digits"), name, subset=10)
    assert data.train.prepared(0).shape == MODELS[name].default_shape and len(data.train) == len(data.test) == 10
    assert open_training_data(Path("digits"), name, input_size=64).preprocessing.crop == (64, 64)


def test_folders_of_parts(parts: Path) -> None:
    """Breaks if the test accuracy of training is of other bits or labels than that of `validate` on the same folder."""
    data = open_training_data(parts, "bcdnet_tiny")
    assert data.class_names == CLASSES and data.preprocessing == MODELS["bcdnet_tiny"].preprocessing(32)
    assert np.bincount(data.train.labels).tolist() == [6, 5, 4]
    images, labels = validated(data, parts / "val")
    for workers in (0, 2):
        found = evaluated(data, workers=workers)
        assert same_bits(found[0], images) and same_bits(found[1], labels)
    (parts / "val").rename(parts / "test")
    assert same_bits(evaluated(open_training_data(parts, "bcdnet_tiny"))[0], images)


def test_held_out_pictures_stay(tmp_path: Path) -> None:
    """Breaks if adding pictures moves others from training to tests, so that what was learned is tested on."""
    data = opened(fill(tmp_path / "x", dict.fromkeys(CLASSES, 40)), held_out=0.25)
    before = set(data.test.names)
    assert len(before) + len(data.train) == 120 and not before & set(data.train.names)
    # 120 draws of probability 1/4, always the same: within 4 deviations of 4.7 of 30.
    assert 11 <= len(before) <= 49
    fill(tmp_path / "x", dict.fromkeys(CLASSES, 20), first=40)
    more = opened(tmp_path / "x", held_out=0.25)
    assert before < set(more.test.names) and set(data.train.names) < set(more.train.names)
    assert set(more.test.names) < set(opened(tmp_path / "x", held_out=0.5).test.names)
    few = opened(fill(tmp_path / "few", dict.fromkeys(CLASSES, 2)), held_out=0.01)
    assert np.bincount(few.test.labels).tolist() == np.bincount(few.train.labels).tolist() == [1, 1, 1]


def test_subset(tmp_path: Path) -> None:
    """Breaks if a small subset lacks a class, is another one each time, or is no part of a larger one."""
    folder = fill(tmp_path / "x", {"ant": 40, "bee": 20, "cat": 2})
    sizes = (3, 10, 31, 1000)
    found = [opened(folder, subset=size).train for size in sizes]
    everything = opened(folder)
    assert [len(images) for images in found] == [3, 10, 31, len(everything.train)]
    for smaller, larger in pairwise(found):
        assert set(smaller.names) < set(larger.names)
    assert np.bincount(found[0].labels).tolist() == [1, 1, 1]
    counts, whole = np.bincount(found[2].labels), np.bincount(everything.train.labels)
    # A class has its share to within the one that each begins with, and another one where places are equal.
    assert (np.abs(counts - whole * 31 / whole.sum()) <= 2).all()
    for images in found:
        assert all(images.labels[index] == CLASSES.index(name[:3]) for index, name in enumerate(images.names))
    with pytest.raises(InputError, match="A subset of 2 images cannot have one of each of the 3 classes"):
        opened(folder, subset=2)
    assert "test images are used" in opened(folder, subset=3).notes[0]


def test_identity(parts: Path) -> None:
    """Breaks if a run goes on with other pictures, or refuses to because they were moved or copied."""
    before = opened(parts).identity
    moved = parts.with_name("moved")
    shutil.copytree(parts, moved)
    assert opened(moved).identity == before
    others = [opened(moved, subset=3).identity, opened(moved, input_size=16).identity]
    put(moved / "train" / "ant" / "000.png", 0, (12, 9))
    others.append(opened(moved).identity)
    (moved / "train" / "ant" / "000.png").rename(moved / "train" / "bee" / "x.png")
    others.append(opened(moved).identity)
    assert len({before, *others}) == 5


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


def emptied(name: str) -> Callable[[Path], object]:
    return lambda folder: [path.unlink() for path in (folder / name).iterdir()]


def linked(folder: Path) -> None:
    put(folder.parent / "outside.png", 0)
    (folder / "train" / "ant" / "link.png").symlink_to(folder.parent / "outside.png")


def single(folder: Path) -> None:
    for part in ("train", "val"):
        for name in ("bee", "cat"):
            shutil.rmtree(folder / part / name)


BAD = {
    "empty class": (emptied("train/bee"), "train/bee: this class folder holds no picture"),
    "empty class of tests": (emptied("val/bee"), "val/bee: this class folder holds no picture"),
    "class missing in val": (without("val/bee"), "train/bee: the class 'bee' is missing in .*val; "),
    "class missing in train": (without("train/bee"), "val/bee: the class 'bee' is missing in .*train; "),
    "no val": (without("val"), "has a folder train but none named val or test"),
    "single class": (single, "train: has a single class, 'ant'"),
    "link": (linked, "link.png: a link that leads out of the folder"),
    "no folder": (lambda folder: shutil.rmtree(folder), "pictures: no such folder; --data takes digits or a folder"),
    "nothing": (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "pictures: this folder holds no picture"),
    "no classes": (
        lambda folder: [shutil.rmtree(folder), put(folder / "x.png", 0)],
        "holds pictures but no sub-folders",
    ),
    "single picture": (
        lambda folder: [shutil.rmtree(folder), fill(folder, {"ant": 2, "bee": 1})],
        "bee: has a single picture, but one is needed to train on and one to test on",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folder(name: str, parts: Path) -> None:
    """Breaks if a folder that cannot be learned from is found out late, or with a traceback."""
    spoil, message = BAD[name]
    spoil(parts)
    with pytest.raises(InputError, match=message) as caught:
        opened(parts)
    assert "\n" not in str(caught.value)


def test_bad_numbers(parts: Path) -> None:
    """Breaks if a run starts that has no batch or no tests, or processes would do unequal work."""
    data = opened(parts)
    with pytest.raises(InputError, match=r"has 15 training images, but step 'binary' takes batches of 16; .* 8\."):
        batches_per_epoch(data, replace(STEP, batch_size=16))
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="The share held out"):
            opened(parts, held_out=share)
    with pytest.raises(InputError, match="no model 'x'"):
        open_training_data(parts, "x")


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_picture(workers: int, parts: Path) -> None:
    """Breaks if a damaged picture is skipped, or its message is lost in the traceback of a worker process."""
    damaged = parts / "train" / "cat" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cat/002\.png: not a picture") as caught:
        epoch_of(opened(parts), replace(STEP, batch_size=15), workers=workers)
    assert "\n" not in str(caught.value)


def test_worker_that_is_killed() -> None:
    """Breaks if a worker that the system kills, as for want of memory, ends in a traceback or hangs the run."""
    data = digits_once()
    killed = replace(data, train=replace(data.train, decode=lambda name: os.kill(os.getpid(), signal.SIGKILL)))
    with pytest.raises(
        ToolError, match=r"One of 1 worker processes that prepare images has ended .*fewer --workers"
    ) as caught:
        epoch_of(killed, workers=1)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2**63 - 1), st.data())
@settings(max_examples=15, deadline=None)
def test_same_images_for_any_number_of_processes(
    share: int, count: int, epoch: int, seed: int, draw: st.DataObject
) -> None:
    """Breaks if two processes, or a run that goes on in the middle of an epoch, learn from other images than one does."""
    data = digits_once()
    step = replace(STEP, batch_size=share * count)
    whole = epoch_of(data, step, seed=seed, epoch=epoch)
    assert len(whole) == batches_per_epoch(data, step) == len(data.train) // step.batch_size
    seen = torch.cat([batch.images for batch in whole])
    rows = {image.tobytes() for image in seen.numpy()}
    assert len(rows) == len(seen)  # the digits are all different, so none comes twice
    first = draw.draw(st.integers(0, len(whole)))
    for rank in range(count):
        processes = Processes(rank, count, torch.device("cpu"))
        mine = epoch_of(data, step, seed=seed, epoch=epoch, processes=processes, first=first)
        assert len(mine) == len(whole) - first
        for part, batch in zip(mine, whole[first:], strict=True):
            assert torch.equal(part.images, batch.images[rank::count])
            assert torch.equal(part.labels, batch.labels[rank::count])
            assert torch.equal(part.targets, torch.eye(10)[part.labels])


_digits: list[TrainingData] = []


def digits_once() -> TrainingData:
    if not _digits:
        _digits.append(open_training_data(Path("digits"), "bimlp_tiny", subset=100))
    return _digits[0]


def test_order_of_epochs() -> None:
    """Breaks if every epoch, step or seed has the same order, or the same one differs from call to call."""

    def order(step: Step = STEP, **options: int) -> bytes:
        return b"".join(batch.images.numpy().tobytes() for batch in epoch_of(digits_once(), step, **options))

    usual = order()
    assert usual == order()
    others = {order(epoch=1), order(seed=1), order(replace(STEP, name="float")), usual}
    assert len(others) == 4


def test_tests_are_shared() -> None:
    """Breaks if an image is tested twice or by no process, which would change the accuracy."""
    data = digits_once()
    images, labels = evaluated(data)
    for count in (2, 3):
        for rank in range(count):
            found = evaluated(data, processes=Processes(rank, count, torch.device("cpu")), batch_size=64)
            assert same_bits(found[0], images[rank::count]) and same_bits(found[1], labels[rank::count])


def test_seeds_are_apart() -> None:
    """Breaks if different uses of randomness share their numbers, or the numbers of a version differ from the last one's."""
    assert seed_of(0, "binary", 3, "order") == 2566136168880791482
    seeds = {seed_of(*parts) for parts in [(), ("",), (1,), ("1",), (1, 1), (11,), ("a", "b"), ("ab",), ("a", "b", "")]}
    assert len(seeds) == 9 and all(0 <= seed < 2**63 for seed in seeds)
