"""The images to train and to test on: scikit-learn's digits, or folders of pictures with one sub-folder for each class.

Only names are listed; each picture is decoded when its turn comes. Test images get the very bits that `validate` gives to a
model with the same preprocessing, so the test accuracy of training is the accuracy that `validate` finds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bnn_deploy.data.digits import CLASS_NAMES, as_shares, load_digits_split, means_digits
from bnn_deploy.data.image_file import decoded, middle, normalised
from bnn_deploy.data.image_folder import class_folders, list_folder
from bnn_deploy.errors import InputError
from bnn_deploy.metadata.preprocessing import Preprocessing, digits
from bnn_deploy.models.registry import find_spec, input_shape
from bnn_deploy.training.seeds import seed_of, share_of

TRAIN = "train"
TESTS = ("val", "test")


@dataclass(frozen=True)
class Images:
    """Labelled pictures in a fixed order.

    Attributes:
        names: one for each, the same wherever the folder lies.
        labels: int64 (n,), from 0.
        preprocessing: from a picture to a model's input.
        decode: from a name to a picture in Pillow's mode RGB, L, or F with pixels in [0, 1].
    """

    names: list[str]
    labels: np.ndarray
    preprocessing: Preprocessing
    decode: Callable[[str], Image.Image]

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Image.Image:
        """The picture as it is; raises InputError for one that cannot be read."""
        return self.decode(self.names[index])

    def prepared(self, index: int) -> np.ndarray:
        """float32 ``preprocessing.shape``, as `validate` makes it."""
        return normalised(middle(self.load(index), self.preprocessing, self.names[index]), self.preprocessing)

    def only(self, indices: Sequence[int]) -> Images:
        """Those at ``indices``."""
        return replace(self, names=[self.names[index] for index in indices], labels=self.labels[list(indices)])


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on.

    Attributes:
        source: the folder, or the digits, for reports.
        train, test: no picture is in both.
        class_names: in the order of the labels.
        preprocessing: goes into the files of weights, and from there into what is exported.
        identity: digest of the names, labels and sizes of all files and of the preprocessing; the same wherever they lie.
        notes: what the user must know.
    """

    source: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    identity: str
    notes: tuple[str, ...] = ()


def open_training_data(
    source: Path,
    model: str,
    *,
    input_size: int | None = None,
    subset: int | None = None,
    held_out: float = 0.1,
) -> TrainingData:
    """The images in ``source`` for the model of that name.

    Args:
        source: ``Path("digits")``; a folder with the folders train and val (or test), each with one sub-folder of pictures
            for each class; or a folder with the sub-folders of the classes.
        model: a key of ``MODELS``.
        input_size: height and width of the model's images; its own by default.
        subset: take at most so many pictures of each part, the classes in proportion, always the same ones.
        held_out: share of each class that is tested on where the folder has no part for that. The choice is made by the
            names of the files, so pictures keep their part when others are added.

    Raises:
        InputError: an unknown model, no pictures, a class without any or in one part only, a single class, a link that
            leads out of the folder, or a number that makes no sense.
        ToolError: ``digits`` without scikit-learn.
    """
    channels, size, _ = input_shape(model, input_size)
    if not 0 < held_out < 1:
        raise InputError(f"The share held out for tests is {held_out}; give a number between 0 and 1, such as 0.1.")
    if means_digits(source):
        return _opened_digits(digits(size, "grey" if channels == 1 else "RGB"), subset)
    return _opened_folder(source, find_spec(model).preprocessing(size), subset, held_out)


def _opened_digits(preprocessing: Preprocessing, subset: int | None) -> TrainingData:
    train_pixels, train_labels, test_pixels, test_labels = load_digits_split()
    pixels = as_shares(np.concatenate([train_pixels, test_pixels]))[:, 0]
    names = [str(number) for number in range(len(pixels))]
    decode = partial(_digit, pixels)
    first = len(train_labels)
    return _finished(
        "scikit-learn's digits",
        Images(names[:first], train_labels, preprocessing, decode),
        Images(names[first:], test_labels, preprocessing, decode),
        CLASS_NAMES,
        subset,
        pixels.tobytes(),
        (),
    )


def _digit(pixels: np.ndarray, name: str) -> Image.Image:
    return Image.fromarray(pixels[int(name)])


def _opened_folder(root: Path, preprocessing: Preprocessing, subset: int | None, held_out: float) -> TrainingData:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --data takes digits or a folder with one sub-folder for each class.")
    notes: tuple[str, ...] = ()
    if (root / TRAIN).is_dir():
        part = _test_part(root)
        train, names, notes = _listed(root, TRAIN, preprocessing, None)
        test, _, more = _listed(root, part, preprocessing, names)
        notes = (*notes, *more)
        unused = [folder for folder in class_folders(root) if folder not in (TRAIN, part)]
        if unused:
            notes = (*notes, f"Only {TRAIN} and {part} of {root} are used, and not {unused[0]!r}.")
    else:
        everything, names, notes = _listed(root, "", preprocessing, None)
        train, test = _held_out(root, everything, names, held_out)
    sizes = [os.stat(root / name).st_size for images in (train, test) for name in images.names]
    return _finished(str(root), train, test, names, subset, json.dumps(sizes).encode(), notes)


def _test_part(root: Path) -> str:
    for part in TESTS:
        if (root / part).is_dir():
            return part
    raise InputError(
        f"{root}: has a folder {TRAIN} but none named {' or '.join(TESTS)} to test on; add one, or give {root / TRAIN} itself, "
        "of which a share is then held out."
    )


def _listed(
    root: Path, part: str, preprocessing: Preprocessing, wanted: tuple[str, ...] | None
) -> tuple[Images, tuple[str, ...], tuple[str, ...]]:
    """The pictures in the class folders of ``root / part``, the names of the classes, and notes."""
    folder = root / part
    names = tuple(class_folders(folder))
    if wanted is not None and names != wanted:
        name = min(set(names).symmetric_difference(wanted))
        here, there = (folder, root / TRAIN) if name in names else (root / TRAIN, folder)
        raise InputError(
            f"{here / name}: the class {name!r} is missing in {there}; both need the same sub-folders, so add it there or remove "
            "it here."
        )
    listing = list_folder(folder, len(names), names)
    if listing.labels is None:
        raise InputError(
            f"{folder}: holds pictures but no sub-folders, so their classes are not known; put those of each class into a "
            "sub-folder of its own."
        )
    if len(names) < 2:
        raise InputError(
            f"{folder}: has a single class, {names[0]!r}, so there is nothing to be learned; add the sub-folders of others."
        )
    relative = [os.path.join(part, name) for name in listing.names]
    decode = partial(_picture, root, preprocessing.channels)
    return Images(relative, listing.labels, preprocessing, decode), names, listing.notes


def _picture(root: Path, channels: str, name: str) -> Image.Image:
    return decoded(root / name, channels)


def _held_out(root: Path, images: Images, names: tuple[str, ...], share: float) -> tuple[Images, Images]:
    """(train, test), with at least one picture of each class in either."""
    drawn = np.array([share_of("held out", _portable(name)) for name in images.names])
    tested = drawn < share
    for label, name in enumerate(names):
        (members,) = np.nonzero(images.labels == label)
        if len(members) < 2:
            raise InputError(
                f"{root / name}: has a single picture, but one is needed to train on and one to test on; add more."
            )
        in_order = members[np.argsort(drawn[members], kind="stable")]
        tested[in_order[0]], tested[in_order[-1]] = True, False
    return images.only(np.flatnonzero(~tested).tolist()), images.only(np.flatnonzero(tested).tolist())


def _finished(
    source: str,
    train: Images,
    test: Images,
    class_names: tuple[str, ...],
    subset: int | None,
    content: bytes,
    notes: tuple[str, ...],
) -> TrainingData:
    """``content``: what else tells the data from others, beside names, labels and preprocessing."""
    if subset is not None:
        if subset < len(class_names):
            raise InputError(
                f"A subset of {subset} images cannot have one of each of the {len(class_names)} classes; give at least "
                f"{len(class_names)}."
            )
        all_tests = len(test)
        train, test = (images.only(_subset(images, subset)) for images in (train, test))
        if len(test) < all_tests:
            notes = (*notes, f"Only {len(test)} of {all_tests} test images are used.")
    facts = [[images.names, images.labels.tolist()] for images in (train, test)]
    told = json.dumps([facts, class_names, train.preprocessing.to_json()]).encode()
    identity = hashlib.sha256(told + content).hexdigest()
    return TrainingData(source, train, test, class_names, train.preprocessing, identity, notes)


def _subset(images: Images, count: int) -> list[int]:
    """Indices of ``count`` images, or of all: each class in proportion and at least once; more images include fewer."""
    drawn = np.array([seed_of("subset", _portable(name)) for name in images.names])
    place = np.empty(len(images))
    for label in np.unique(images.labels):
        (members,) = np.nonzero(images.labels == label)
        # The first of each class has place 0, and half of each class has places below 1/2.
        place[members[np.argsort(drawn[members], kind="stable")]] = np.arange(len(members)) / len(members)
    return sorted(np.lexsort((drawn, place))[:count].tolist())


def _portable(name: str) -> str:
    """The same on every system."""
    return name.replace(os.sep, "/")
