"""One picture file to one input of a model, with the same bits as torchvision's transforms on a Pillow image."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image

from bnn_deploy.errors import InputError, message_lines
from bnn_deploy.metadata.preprocessing import Preprocessing

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
# Pillow's own bound for suspicion. A file of a few kB can declare such a size, and decoding would then take all memory.
LARGEST_PIXELS = 89_478_485
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What Pillow converts to RGB or grey sensibly. Floating-point pixels (of .pfm files) have no scale that could be known.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """The picture in ``path`` as float32 ``preprocessing.shape``.

    As torchvision's ImageFolder does it, transparency and EXIF orientation are ignored, and the first of several frames
    counts. Grey pixels of 16 bits give their upper 8, as those of colours do (torchvision makes nearly all of them white).

    Raises:
        InputError: not a picture, a truncated one, or one with more than ``LARGEST_PIXELS``.
    """
    return normalised(middle(decoded(path, preprocessing.channels), preprocessing, path), preprocessing)


def decoded(path: Path, channels: str) -> Image.Image:
    """The picture in ``path`` in Pillow's mode RGB, or L if ``channels`` is "grey"; raises as ``read_image``."""
    try:
        with open(path, "rb", opener=_regular) as file, Image.open(file, formats=_FORMATS) as image:
            _require_size(path, image.size)
            image.load()
            return _converted(path, image, channels)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except Exception as error:  # its decoders raise almost anything on damaged files
        raise InputError(
            f"{path}: not a picture that can be read ({message_lines(error)[0]}); replace or remove the file."
        ) from error


def _regular(path: str, flags: int) -> int:
    """For ``open``: without waiting, should the name be that of a pipe."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: not a file; remove it from the folder.")
    return descriptor


def _converted(path: Path, image: Image.Image, channels: str) -> Image.Image:
    if image.mode in _WIDE_MODES:
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise InputError(f"{path}: holds grey pixels of more than 16 bits; save it as 8-bit PNG.")
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    elif image.mode not in _MODES:
        raise InputError(f"{path}: holds pixels of Pillow's mode {image.mode!r}; save it as 8-bit PNG.")
    # Grey, too, by way of RGB: that is what torchvision's Grayscale is given.
    coloured = image.convert("RGB")
    return coloured if channels == "RGB" else coloured.convert("L")


def resized(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    """``image`` at (width, height) ``size``."""
    return image.resize(size, _RESAMPLING[preprocessing.interpolation])


def middle(image: Image.Image, preprocessing: Preprocessing, name: Path | str) -> Image.Image:
    """torchvision's Resize(resize) and CenterCrop(crop); raises InputError for an absurd size, with the picture's name."""
    width, height = image.size
    longer = int(preprocessing.resize * max(width, height) / min(width, height))
    size = (preprocessing.resize, longer) if width <= height else (longer, preprocessing.resize)
    if size != image.size:
        # A line one pixel high would become as long as it was, and hundreds of pixels high.
        _require_size(name, size)
        image = resized(image, size, preprocessing)
    rows, columns = preprocessing.crop
    # Python's round takes halves to the even number; so does torchvision.
    top, left = round((size[1] - rows) / 2.0), round((size[0] - columns) / 2.0)
    return image.crop((left, top, left + columns, top + rows))


def normalised(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """torchvision's ToTensor and Normalize, in float32 step by step: float32 ``preprocessing.shape``.

    Args:
        image: of the size ``preprocessing.crop``; RGB, grey of 8 bits, or of Pillow's mode F with pixels in [0, 1].
    """
    rows, columns = preprocessing.crop
    pixels = np.asarray(image, np.float32).reshape(rows, columns, -1)
    if image.mode != "F":
        pixels = pixels / np.float32(255)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


def _require_size(path: Path | str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > LARGEST_PIXELS or min(size) < 1:
        raise _too_large(path, size)


def _too_large(path: Path | str, size: tuple[int, int] | None = None) -> InputError:
    found = "" if size is None else f" ({size[0]}x{size[1]})"
    return InputError(
        f"{path}: would take more than {LARGEST_PIXELS} pixels{found}, which no picture needs; "
        "make it smaller or remove the file."
    )
