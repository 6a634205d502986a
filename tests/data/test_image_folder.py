"""Which picture has which label, in which order, and what a folder must not be."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnn_deploy.data.dataset import Dataset
from bnn_deploy.data.digits import load_digits_split
from bnn_deploy.data.image_folder import list_folder
from bnn_deploy.data.open_dataset import open_dataset
from bnn_deploy.errors import InputError, ModelFileError
from bnn_deploy.metadata.entries import CLASS_NAMES, PREPROCESSING
from bnn_deploy.metadata.preprocessing import digits

SHAPE = (1, 8, 8)
METADATA = {PREPROCESSING: digits(8).to_json()}


def put(path: Path, value: int = 0) -> None:
    """A grey picture of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def opened(folder: Path, classes: int = 10, **metadata: str) -> Dataset:
    return open_dataset(folder, SHAPE, classes, {**METADATA, **metadata}, "x.onnx")


def values(dataset: Dataset, size: int, start: int = 0, samples: int | None = None) -> list[int]:
    """The grey value of each picture."""
    batches = [images for images, _ in dataset.batches(size, samples, start)]
    return [round((float(image[0, 0, 0]) * 0.5 + 0.5) * 255) for image in np.concatenate(batches)]


def labels(dataset: Dataset) -> list[int]:
    return [int(label) for _, batch in dataset.batches(3) if batch is not None for label in batch]


def test_order_and_labels(tmp_path: Path) -> None:
    """Breaks if pictures are in another order than torchvision's ImageFolder has them, or get the label of another class."""
    names = ["b/2.PNG", "b/10.png", "a/z.png", "a/deep/y.jpeg", "a/deep/x.bmp", "c/k.webp", "c/l.ppm", "c/m.pgm"]
    for value, name in enumerate(names):
        put(tmp_path / name, value * 10)
    dataset = opened(tmp_path)
    assert dataset.samples == 8 and dataset.labelled and "3 sub-folders for 10 classes" in dataset.note
    # JPEG and WebP are not exact to one step.
    expected = [20, 40, 30, 10, 0, 50, 60, 70]
    assert np.abs(np.array(values(dataset, 3)) - expected).max() <= 1
    assert labels(dataset) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert values(dataset, 2, start=3, samples=6) == values(dataset, 8)[3:6]


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    """Breaks if a folder of pictures without classes gets labels, or files that are none are silently left out."""
    for value in (3, 1, 2):
        put(tmp_path / f"{value}.png", value)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    dataset = opened(tmp_path)
    assert values(dataset, 2) == [1, 2, 3] and not dataset.labelled and labels(dataset) == []
    assert "1 files that are no pictures" in dataset.note and "readme.txt" in dataset.note


def test_class_names_of_the_model(tmp_path: Path) -> None:
    """Breaks if a model that names its classes gets labels by the order of the sub-folders instead."""
    for name in ("cat", "dog"):
        put(tmp_path / name / "x.png")
    named = {CLASS_NAMES: json.dumps(["dog", "bird", "cat"])}
    dataset = opened(tmp_path, 3, **named)
    assert labels(dataset) == [2, 0] and dataset.note == ""
    put(tmp_path / "mouse" / "x.png")
    with pytest.raises(InputError, match="'mouse' is none of the 3 classes"):
        opened(tmp_path, 3, **named)
    for bad in ("{}", "[]", "[1]", '["a", "a"]', '[""]', json.dumps(["a" * 256]), "[" * 4000):
        with pytest.raises(ModelFileError, match="not a JSON list"):
            opened(tmp_path, 3, **{CLASS_NAMES: bad})


def test_numbers_as_names(tmp_path: Path) -> None:
    """Breaks if it goes unsaid that the folder "10" is class 2, since names are ordered as texts."""
    for number in range(11):
        put(tmp_path / str(number) / "x.png")
    assert "'10' counts as class 2" in opened(tmp_path, 11).note


def array_beside(folder: Path) -> None:
    put(folder / "a" / "x.png")
    np.save(folder / "x.npy", np.zeros((1, *SHAPE), np.float32))


def folders_beside(folder: Path) -> None:
    put(folder / "x.png")
    (folder / "a").mkdir()


def empty_class(folder: Path) -> None:
    put(folder / "a" / "x.png")
    (folder / "b").mkdir()


def many_classes(folder: Path) -> None:
    for number in range(3):
        put(folder / str(number) / "x.png")


def link_out(folder: Path) -> None:
    put(folder.parent / "elsewhere" / "secret.png")
    put(folder / "a" / "x.png")
    (folder / "a" / "y.png").symlink_to(folder.parent / "elsewhere" / "secret.png")


def class_link_out(folder: Path) -> None:
    put(folder.parent / "elsewhere" / "secret.png")
    (folder / "a").symlink_to(folder.parent / "elsewhere")


def link_inside(folder: Path) -> None:
    put(folder / "a" / "x.png")
    (folder / "a" / "again").symlink_to(folder)


BAD_FOLDERS = {
    "nothing": (lambda folder: None, "holds no .npy or .npz file and no picture"),
    "array": (array_beside, r"both arrays \(x.npy\) and pictures"),
    "mixed": (folders_beside, "pictures beside sub-folders"),
    "empty": (empty_class, "b: this class folder holds no picture"),
    "many": (many_classes, "3 sub-folders, one for each class, but the model has 2"),
    "out": (link_out, "y.png: a link that leads out"),
    "class": (class_link_out, "a: a link that leads out"),
    "loop": (link_inside, "again: a link to a folder inside"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folder(name: str, tmp_path: Path) -> None:
    """Breaks if a folder is understood in one of two ways, read beyond its border, or passes with nothing in it."""
    make, message = BAD_FOLDERS[name]
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    with pytest.raises(InputError, match=message):
        opened(folder, 2)


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if pictures are left out because a folder could not be read."""
    put(tmp_path / "a" / "deep" / "x.png")
    put(tmp_path / "a" / "x.png")
    scandir = os.scandir

    def denied(path: str | Path) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match="deep: cannot be listed"):
        opened(tmp_path)


def test_pictures_need_preprocessing(tmp_path: Path) -> None:
    """Breaks if pictures are compared that were prepared by guesswork."""
    put(tmp_path / "x.png")
    with pytest.raises(InputError, match="some model: does not say how its inputs are made of pictures"):
        open_dataset(tmp_path, SHAPE, 10, {}, "some model")


def test_damaged_picture_ends_the_run(tmp_path: Path) -> None:
    """Breaks if a damaged picture is skipped, so that fewer or other images are compared than the user believes."""
    for index in range(6):
        put(tmp_path / f"{index}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:45])
    dataset, threads = opened(tmp_path), threading.active_count()
    seen = 0
    with pytest.raises(InputError, match=r"3\.png"):
        for images, _ in dataset.batches(1):
            seen += len(images)
    assert seen == 3
    assert len(values(dataset, 2, samples=3)) == 3
    assert threading.active_count() == threads


def test_memory_is_flat(tmp_path: Path) -> None:
    """Breaks if pictures are kept after their turn."""
    import tracemalloc

    for index in range(40):
        (tmp_path / f"{index:02d}.png").write_bytes(b"")
    Image.new("L", (400, 400)).save(tmp_path / "00.png")
    for index in range(1, 40):
        os.unlink(tmp_path / f"{index:02d}.png")
        os.link(tmp_path / "00.png", tmp_path / f"{index:02d}.png")
    metadata = {PREPROCESSING: digits(400).to_json()}
    dataset = open_dataset(tmp_path, (1, 400, 400), 10, metadata)
    tracemalloc.start()
    count = sum(len(images) for images, _ in dataset.batches(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # An image is 640 kB: two batches of two are ahead or in use, each for a moment twice, and single steps of arithmetic.
    assert count == 40 and peak < 20 * 640_000


def test_listing_is_quick_and_small(tmp_path: Path) -> None:
    """Breaks if the pictures are opened to list them: with 50,000 that takes minutes."""
    for label in range(2):
        (tmp_path / str(label)).mkdir()
        for index in range(500):
            (tmp_path / str(label) / f"{index}.jpg").write_bytes(b"not a picture")
    listing = list_folder(tmp_path, 2)
    assert len(listing.names) == 1000 and listing.labels is not None and listing.labels.sum() == 500


def test_identity(tmp_path: Path) -> None:
    """Breaks if a run goes on with other pictures, or a folder that was only moved counts as another one."""
    for name in ("a/x.png", "b/x.png"):
        put(tmp_path / "one" / name)
    before = opened(tmp_path / "one").identity()
    (tmp_path / "one").rename(tmp_path / "two")
    assert opened(tmp_path / "two").identity() == before
    (tmp_path / "two" / "a" / "x.png").rename(tmp_path / "two" / "a" / "y.png")
    renamed = opened(tmp_path / "two").identity()
    os.utime(tmp_path / "two" / "a" / "y.png", (1, 1))
    changed = opened(tmp_path / "two").identity()
    assert len({json.dumps(identity) for identity in (before, renamed, changed)}) == 3


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if `--data digits` is not the split that the models here are tested on, or a folder of that name is ignored."""
    monkeypatch.chdir(tmp_path)
    _, _, images, expected = load_digits_split()
    dataset = open_dataset(Path("digits"), SHAPE, 10, METADATA)
    batches = list(dataset.batches(7))
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in batches]), images)
    assert labels(dataset) == expected.tolist() and dataset.samples == 360 and dataset.note == ""
    other = digits(8).to_json().replace("0.5", "0.25")
    scaled = next(open_dataset(Path("digits"), SHAPE, 10, {PREPROCESSING: other}).batches(360))[0]
    # (pixel / 16 - 1/4) / (1/4), exact for whole pixels up to 16.
    np.testing.assert_array_equal(scaled, (images + 1) * 2 - 1)
    assert "scaled to -1..1" in open_dataset(Path("digits"), SHAPE, 10).note
    with pytest.raises(InputError, match=r"some model: .* of shape \(1, 8, 8\), but the model takes \(3, 32, 32\)"):
        open_dataset(Path("digits"), (3, 32, 32), 10, METADATA, "some model")
    with pytest.raises(InputError, match="some model: does not say how its inputs are made"):
        open_dataset(Path("digits"), (3, 32, 32), 10, {}, "some model")
    with pytest.raises(InputError, match="has only 7"):
        open_dataset(Path("digits"), SHAPE, 7, METADATA)
    (tmp_path / "digits").mkdir()
    with pytest.raises(InputError, match="a file or folder of that name here"):
        open_dataset(Path("digits"), SHAPE, 10, METADATA)
