"""Random changes of training images: which they are, and that they are the same however often they are made."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bnn_deploy.errors import ToolError
from bnn_deploy.training.augmentation import Augmented, random_box, recolours, shifted
from bnn_deploy.training.data import TrainingData, open_training_data
from bnn_deploy.training.loader import TrainingBatch, training_batches
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.step import Step

ROOT = Path(__file__).parents[2]
STEP = Step("binary", epochs=1, batch_size=40, learning_rate=1.0)
EVERYTHING = replace(STEP, crop_scale=0.3, flip=0.5, shift=2, mixup=0.4, cutmix=1.0)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return open_training_data(Path("digits"), "bimlp_tiny", subset=120)


def epoch_of(data: TrainingData, step: Step, **options: object) -> list[TrainingBatch]:
    return list(training_batches(data, step, **{"seed": 3, "epoch": 1, "processes": Processes.single(), **options}))


def test_nothing_asked_for(data: TrainingData) -> None:
    """Breaks if a recipe without augmentation trains on other bits than those of the pictures."""
    augmented = Augmented(data.train, STEP, 0, 0)
    for index in range(len(data.train)):
        np.testing.assert_array_equal(augmented.prepared(index), data.train.prepared(index))


def test_same_images_whoever_makes_them(data: TrainingData) -> None:
    """Breaks if workers, a later beginning or a second time change what is trained on; or if nothing is random at all."""
    usual = epoch_of(data, EVERYTHING)
    for options in ({}, {"workers": 1}, {"workers": 2, "first": 1}):
        again = epoch_of(data, EVERYTHING, **options)
        for batch, expected in zip(again, usual[options.get("first", 0) :], strict=True):
            assert torch.equal(batch.images, expected.images) and torch.equal(batch.targets, expected.targets)
    unmixed = replace(EVERYTHING, mixup=0.0, cutmix=0.0)
    whole = epoch_of(data, unmixed)
    for rank in range(2):
        mine = epoch_of(data, unmixed, processes=Processes(rank, 2, torch.device("cpu")))
        for batch, expected in zip(mine, whole, strict=True):
            assert torch.equal(batch.images, expected.images[rank::2])
    made = [Augmented(data.train, unmixed, seed, epoch).prepared(5) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    made.append(Augmented(data.train, replace(unmixed, name="float"), 0, 0).prepared(5))
    assert len({image.tobytes() for image in made}) == 4


def test_mirror_images(data: TrainingData) -> None:
    """Breaks if flip is another axis, or another probability than the recipe says."""
    always, half = (Augmented(data.train, replace(STEP, flip=share), 0, 0) for share in (1.0, 0.5))
    flipped = 0
    for index in range(len(data.train)):
        image = data.train.prepared(index)
        mirror = image[:, :, ::-1]
        np.testing.assert_array_equal(always.prepared(index), mirror)
        found = half.prepared(index)
        assert np.array_equal(found, mirror) or np.array_equal(found, image)
        flipped += np.array_equal(found, mirror)
    # 120 draws, always the same ones: within 4 standard deviations, 4 * sqrt(120) / 2 = 22, of 60.
    assert 38 <= flipped <= 82


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-12, 12), st.integers(-12, 12), st.sampled_from("LF"))
@settings(max_examples=40, deadline=None)
def test_shift_repeats_the_edge(width: int, height: int, right: int, down: int, mode: str) -> None:
    """Breaks if an image moves the other way, or zeros come in that no picture holds."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8 if mode == "L" else np.float32)
    found = np.asarray(shifted(Image.fromarray(pixels), right, down))
    padded = np.pad(pixels, 12, mode="edge")
    np.testing.assert_array_equal(found, padded[12 - down : 12 - down + height, 12 - right : 12 - right + width])
    assert found.dtype == pixels.dtype


def test_shift_in_a_recipe(data: TrainingData) -> None:
    """Breaks if images move farther than the recipe says, or never as far."""
    augmented = Augmented(data.train, replace(STEP, shift=1), 0, 0)
    seen = set()
    for index in range(len(data.train)):
        padded = np.pad(data.train.prepared(index)[0], 1, mode="edge")
        moves = [(x, y) for x in range(3) for y in range(3)]
        found = augmented.prepared(index)[0]
        matching = [(x, y) for x, y in moves if np.array_equal(padded[y : y + 8, x : x + 8], found)]
        assert matching
        seen.update(matching)
    assert len(seen) == 9


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_boxes_of_random_crops(width: int, height: int, smallest: float, seed: int) -> None:
    """Breaks if a crop leaves the image, is smaller than the recipe allows, or is stretched more than in the papers."""
    left, top, right, bottom = random_box((width, height), smallest, random.Random(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    columns, rows = right - left, bottom - top
    whole = columns == width or rows == height  # perhaps the middle of an image that is too narrow
    # Sides are rounded to whole pixels, each by at most one half.
    assert whole or (columns + 0.5) * (rows + 0.5) >= smallest * width * height
    assert min(columns, rows) == 1 or (
        (columns - 0.5) / (rows + 0.5) <= 4 / 3 and (rows - 0.5) / (columns + 0.5) <= 4 / 3
    )


def test_sizes_of_random_crops() -> None:
    """Breaks if areas are not uniform between the smallest and the whole, as the papers' recipes have them."""
    draws, areas, places = random.Random(0), [], []
    for _ in range(2000):
        left, top, right, bottom = random_box((200, 200), 0.1, draws)
        areas.append((right - left) * (bottom - top) / 40_000)
        places.append((left + right) / 400)
    # Boxes of almost the whole area seldom fit, so only the lower half is compared: as many from 0.1 to 0.3 as from 0.3 to
    # 0.5, to 4 standard deviations of a difference of two counts of about 2000 * 0.2 / 0.9 = 440: 4 * sqrt(880) = 119.
    low, high = (sum(first <= area < first + 0.2 for area in areas) for first in (0.1, 0.3))
    assert abs(low - high) < 119 and min(areas) < 0.11 and max(areas) > 0.9
    # The middle of a place is 1/2, with a deviation of at most 1/sqrt(12) for each of 2000: 4 * 0.289 / 44.7 = 0.026.
    assert abs(sum(places) / 2000 - 0.5) < 0.026


def test_random_crop_is_resized() -> None:
    """Breaks if a crop is not the part of the picture that was drawn, at the model's size."""
    data = open_training_data(Path("digits"), "bcdnet_tiny", subset=10)
    found = {Augmented(data.train, replace(STEP, crop_scale=0.3), 0, 0).prepared(0).tobytes()}
    picture = data.train.load(0)
    possible = set()
    for left in range(8):
        for top in range(8):
            for right in range(left + 1, 9):
                for bottom in range(top + 1, 9):
                    if (right - left + 0.5) * (bottom - top + 0.5) < 0.3 * 64:
                        continue
                    part = picture.crop((left, top, right, bottom)).resize((32, 32), Image.Resampling.BILINEAR)
                    grey = (np.asarray(part) - np.float32(0.5)) / np.float32(0.5)
                    possible.add(np.repeat(grey[None], 3, axis=0).tobytes())
    assert found < possible


def test_no_torchvision(data: TrainingData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if a recipe that needs torchvision ends in a traceback, or after hours in its second step."""
    wanting = replace(STEP, random_augment=2)
    assert recolours(STEP) == []
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for step in (wanting, replace(STEP, colour_jitter=(0.1, 0.0, 0.0, 0.0))):
        with pytest.raises(ToolError, match="step 'binary' comes with torchvision, which is not installed; install"):
            recolours(step)
    monkeypatch.delitem(sys.modules, "torchvision")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ToolError, match=r"does not load beside torch .*operator torchvision::nms does not exist"
    ) as caught:
        next(training_batches(data, wanting, seed=0, epoch=0, processes=Processes.single()))
    assert "\n" not in str(caught.value)


# The torchvision of the package index misses operators beside a torch for processors only; two schemas are enough.
TORCHVISION_PROGRAM = """
import torch
for name in ("nms", "qnms") if torch.version.cuda is None else ():
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision
from dataclasses import replace
from pathlib import Path
import numpy as np
from PIL import Image
from torchvision.transforms import v2
from bnn_deploy.training.augmentation import Augmented, random_box, recoloured, recolours
from bnn_deploy.training.data import Images, open_training_data
from bnn_deploy.training.loader import training_batches
from bnn_deploy.training.processes import Processes
from bnn_deploy.training.step import Step
from bnn_deploy.training.seeds import seed_of

jitter = Step("binary", epochs=1, batch_size=5, learning_rate=1.0, colour_jitter=(0.2, 0.2, 0.2, 0.1))
step = replace(jitter, random_augment=2, random_augment_magnitude=20)
torch.manual_seed(77)
before = torch.get_rng_state()
made = recolours(step)
assert [type(transform) for transform in made] == [v2.ColorJitter, v2.RandAugment], made
assert (made[1].num_ops, made[1].magnitude, made[1].num_magnitude_bins) == (2, 20, 31)
assert made[0].hue == (-0.1, 0.1) and made[0].contrast == (0.8, 1.2)

# For grey and colours, 8 bits and floats: what torchvision makes with the seed of this image.
for model in ("bimlp_tiny", "bcdnet_tiny"):
    data = open_training_data(Path("digits"), model, subset=10)
    changed = 0
    for index in range(10):
        found = Augmented(data.train, step, 4, 1).prepared(index)
        image = data.train.load(index)
        size = data.preprocessing.crop
        pixels = np.asarray(image if size == (8, 8) else image.resize(size, Image.Resampling.BILINEAR))
        image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(4, "binary", 1, "image", index, "colours"))
            image = v2.RandAugment(2, 20)(v2.ColorJitter(0.2, 0.2, 0.2, 0.1)(image))
        scaled = np.asarray(image).astype(np.float32) / np.float32(255)
        expected = np.repeat(((scaled - np.float32(0.5)) / np.float32(0.5))[None], found.shape[0], axis=0)
        np.testing.assert_array_equal(found, expected)
        changed += not np.array_equal(found, data.train.prepared(index))
    assert changed > 5, changed
    # A worker makes the same.
    batches = [
        [batch.images for batch in training_batches(
            data, step, seed=4, epoch=1, processes=Processes.single(), workers=workers)]
        for workers in (0, 1)
    ]
    assert len(batches[0]) == 2 and all(torch.equal(*pair) for pair in zip(*batches, strict=True))
colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))
assert len({recoloured(colours, made, seed).tobytes() for seed in range(5)}) == 5
assert recoloured(colours, made, 3).mode == "RGB"
assert torch.equal(torch.get_rng_state(), before)

# The boxes of random crops are those that torchvision allows: the largest one in the middle where none fits.
import random
for size in ((400, 10), (10, 400), (7, 300)):
    shape = v2.RandomResizedCrop(8, scale=(1.0, 1.0)).make_params([Image.new("L", size)])
    left, top, right, bottom = random_box(size, 1.0, random.Random(0))
    assert (top, left, bottom - top, right - left) == tuple(shape[key] for key in ("top", "left", "height", "width"))
print("as torchvision", torchvision.__version__)
"""


def test_against_torchvision(tmp_path: Path) -> None:
    """Breaks if colours are changed otherwise than by torchvision with the image's seed, or torch's generator is disturbed."""
    folder = ROOT / ".torchvision"
    if not (folder / "torchvision").is_dir():
        sentence = "missing: .torchvision, which .ci/torchvision makes"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    program = [sys.executable, "-c", TORCHVISION_PROGRAM]
    result = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "as torchvision 0." in result.stdout, result.stderr
