"""A folder of pictures: one sub-folder for each class as torchvision's ImageFolder has it, or no sub-folders and no labels.

Only names are listed; each picture is decoded shortly before its turn comes, and then forgotten.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bnn_deploy.data.arrays import listing_digest
from bnn_deploy.data.dataset import Batch, Dataset, Identity
from bnn_deploy.data.image_file import SUFFIXES, read_image
from bnn_deploy.errors import InputError
from bnn_deploy.metadata import entries
from bnn_deploy.metadata.class_names import class_names_of
from bnn_deploy.metadata.preprocessing import Preprocessing, required_preprocessing

# Pillow decodes without Python's lock, but a few threads keep up with any model on the same machine.
_MOST_THREADS = 4


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder in order.

    Attributes:
        root: the folder.
        names: of the files, relative to ``root``.
        labels: int64, one for each; None in a folder without sub-folders.
        notes: what the user must know.
    """

    root: Path
    names: list[str]
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return name.lower().endswith(SUFFIXES)


def first_image(root: Path) -> str | None:
    """Name of some picture in ``root`` or below it, relative to it."""
    # A class folder may be a link, which `walk` does not follow.
    links = [entry.path for entry in os.scandir(root) if entry.is_symlink() and entry.is_dir()]
    for top in (str(root), *links):
        for place, _, files in os.walk(top):
            for name in filter(is_image, files):
                return os.path.relpath(os.path.join(place, name), root)
    return None


def open_image_folder(
    root: Path, shape: tuple[int, ...], classes: int, metadata: Mapping[str, Any], model: str
) -> Dataset:
    """The pictures of ``root``, prepared as ``metadata`` say.

    Args:
        shape: of one input of the model, without batch.
        classes: number of its logits.
        metadata: of the ONNX file, or ``manifest["model"]`` of the bundle.
        model: its name, for messages.

    Raises:
        InputError: no picture, an empty class, more classes than logits, a link that leaves the folder, or no
            preprocessing in the metadata.
        ModelFileError: metadata that cannot be understood.
    """
    preprocessing = required_preprocessing(metadata, model, shape)
    listing = list_folder(root, classes, class_names_of(metadata, model))

    def chunks_from(start: int, size: int) -> Iterator[Batch]:
        return _decoded(listing, preprocessing, start, size)

    def identity() -> Identity:
        # The paths are made one by one: a list of them would stay in memory beside the names.
        return {"kind": "pictures", "digest": listing_digest((name, root / name) for name in listing.names)}

    return Dataset(
        str(root),
        len(listing.names),
        listing.labels is not None,
        lambda size: chunks_from(0, size),
        " ".join(listing.notes),
        chunks_from=chunks_from,
        find_identity=identity,
    )


def class_folders(root: Path) -> list[str]:
    """Names of the sub-folders, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def list_folder(root: Path, classes: int, class_names: tuple[str, ...] | None = None) -> Listing:
    """Sub-folders in the order of their names are classes 0, 1, …, or those of ``class_names``; see ``open_image_folder``."""
    folders = class_folders(root)
    top, others = _files_below(root, root, deep=False)
    if top and folders:
        raise InputError(
            f"{root}: holds pictures beside sub-folders (such as {top[0]!r} beside {folders[0]!r}), so it is not clear "
            "whether these are classes; give a folder of pictures only, or of one sub-folder for each class only."
        )
    if not folders:
        if not top:
            raise InputError(f"{root}: this folder holds no picture ({' '.join(SUFFIXES)}); give one with pictures.")
        return Listing(root, top, None, _left_out(others))
    numbers = _class_numbers(root, folders, classes, class_names)
    names: list[str] = []
    counts = []
    for folder in folders:
        found, more = _files_below(root, root / folder)
        if not found:
            raise InputError(
                f"{root / folder}: this class folder holds no picture ({' '.join(SUFFIXES)}); fill it or remove it."
            )
        names += found
        others += more
        counts.append(len(found))
    notes = _left_out(others)
    if class_names is None:
        notes += _doubts(folders, classes)
    return Listing(root, names, np.repeat(np.array(numbers, np.int64), counts), notes)


def _files_below(root: Path, folder: Path, deep: bool = True) -> tuple[list[str], list[str]]:
    """Pictures and other files below ``folder``, relative to ``root``, in torchvision's order; no link leaves ``root``."""
    inside = os.path.realpath(root)
    _require_inside(folder, inside)
    pictures, others = [], []
    for place, folders, files in sorted(os.walk(folder, onerror=_refuse)):
        here = Path(place)
        if not deep and here != folder:
            break
        for name in folders:
            if deep and (here / name).is_symlink():
                raise InputError(f"{here / name}: a link to a folder inside a class folder; put the pictures there.")
        for name in sorted(files):
            relative = os.path.relpath(os.path.join(place, name), root)
            if not is_image(name):
                others.append(relative)
                continue
            _require_inside(here / name, inside)
            pictures.append(relative)
    return pictures, others


def _refuse(error: OSError) -> None:
    """`walk` would leave out what it may not list."""
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions.") from error


def _require_inside(path: Path, inside: str) -> None:
    if not path.is_symlink():
        return
    if not os.path.realpath(path).startswith(inside.rstrip(os.sep) + os.sep):
        raise InputError(f"{path}: a link that leads out of the folder; put the pictures themselves there.")


def _class_numbers(root: Path, folders: list[str], classes: int, class_names: tuple[str, ...] | None) -> list[int]:
    if len(folders) > classes:
        raise InputError(
            f"{root}: has {len(folders)} sub-folders, one for each class, but the model has {classes} classes; "
            "give pictures of the model's classes."
        )
    if class_names is None:
        return list(range(len(folders)))
    known = {name: number for number, name in enumerate(class_names)}
    for folder in folders:
        if known.get(folder, classes) >= classes:
            raise InputError(
                f"{root / folder}: {folder!r} is none of the {min(len(class_names), classes)} classes that the model's "
                f"metadata name (such as {class_names[0]!r}); rename the sub-folder."
            )
    return [known[folder] for folder in folders]


def _left_out(others: list[str]) -> tuple[str, ...]:
    visible = [name for name in others if not os.path.basename(name).startswith(".")]
    if not visible:
        return ()
    return (f"{len(visible)} files that are no pictures of a known kind were left out, such as {visible[0]!r}.",)


def _doubts(folders: list[str], classes: int) -> tuple[str, ...]:
    """What makes the numbers of the classes doubtful when nothing but the order of the names gives them."""
    for number, name in enumerate(folders):
        if name.isascii() and name.isdigit() and int(name[:9]) != number:
            return (f"Sub-folder {name!r} counts as class {number}, its place in the order of the names.",)
    if len(folders) < classes:
        return (
            f"There are {len(folders)} sub-folders for {classes} classes; they count as classes 0 to {len(folders) - 1} "
            f"in the order of their names, unless the model's metadata name its classes ({entries.CLASS_NAMES}).",
        )
    return ()


def _decoded(listing: Listing, preprocessing: Preprocessing, start: int, size: int) -> Iterator[Batch]:
    """One picture after the other in order, while threads decode those of the next two batches of ``size``."""
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="pictures")
    names = iter(listing.names[start:])
    ahead: deque[Future[np.ndarray]] = deque()

    def ask(count: int) -> None:
        for name in islice(names, count):
            ahead.append(pool.submit(read_image, listing.root / name, preprocessing))

    try:
        ask(2 * size)
        for position in range(start, len(listing.names)):
            image = ahead.popleft().result()
            ask(1)
            yield image[None], None if listing.labels is None else listing.labels[position : position + 1]
    finally:
        pool.shutdown(cancel_futures=True)
