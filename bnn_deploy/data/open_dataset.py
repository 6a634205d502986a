"""Opens what the option ``--data`` names: the digits, arrays, pictures, or folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_deploy.data.arrays import SUFFIXES, open_arrays
from bnn_deploy.data.dataset import Dataset
from bnn_deploy.data.digits import means_digits, open_digits
from bnn_deploy.errors import InputError


def open_dataset(
    path: Path,
    shape: tuple[int, ...],
    classes: int,
    metadata: Mapping[str, Any] | None = None,
    model: str = "the model",
) -> Dataset:
    """Images, and labels if any, to run a model on.

    Everything is read in batches, so memory stays flat whatever the size. Files are not trusted: nothing is unpickled, and
    sizes that a file declares are checked before anything is allocated.

    - ``digits``: scikit-learn's digits, see ``bnn_deploy.data.digits``.
    - a .npz file (``x`` or ``images``, and optionally ``y`` or ``labels``), a .npy file, or a folder of both, taken in the
      order of their names. All files must have labels for the data to be labelled.
    - a folder of pictures, or of one sub-folder of pictures for each class, see ``bnn_deploy.data.image_folder``.

    Args:
        path: file or folder, or ``Path("digits")``.
        shape: shape of one image, without batch.
        classes: labels must be in [0, classes).
        metadata: of the ONNX file, or ``manifest["model"]`` of the bundle; pictures need its ``bnn_deploy.preprocessing``.
        model: what has these metadata, for messages.

    Raises:
        InputError: nothing usable there; wrong names, shape, dtype or size; labels that do not fit; a folder that can be
            understood in two ways.
        ModelFileError: metadata that cannot be understood.
        ToolError: ``digits`` without scikit-learn.
    """
    metadata = metadata or {}
    if means_digits(path):
        return open_digits(shape, classes, metadata, model)
    if path.is_dir():
        return _open_folder(path, shape, classes, metadata, model)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or folder; --data takes digits, a .npy or .npz file, or a folder of them or of pictures."
        )
    return open_arrays(path, [path], shape, classes)


def _open_folder(path: Path, shape: tuple[int, ...], classes: int, metadata: Mapping[str, Any], model: str) -> Dataset:
    # Pillow takes a while to load, and arrays do not need it.
    from bnn_deploy.data.image_folder import first_image, open_image_folder

    arrays = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    picture = first_image(path)
    if arrays and picture:
        raise InputError(
            f"{path}: holds both arrays ({arrays[0].name}) and pictures ({picture}), and only one can be meant; "
            "move one of them away."
        )
    if arrays:
        return open_arrays(path, arrays, shape, classes)
    if not picture:
        raise InputError(
            f"{path}: this folder holds no .npy or .npz file and no picture; put float32 images of shape {shape} in it, or "
            "one sub-folder of pictures for each class."
        )
    return open_image_folder(path, shape, classes, metadata, model)
