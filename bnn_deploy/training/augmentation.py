"""Training images are changed at random: cropped, mirrored, shifted, and recoloured by torchvision.

Everything is drawn from (seed, step, epoch, index of the image), so an image comes out the same whoever prepares it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from bnn_deploy.data.image_file import middle, normalised, resized
from bnn_deploy.errors import ToolError, message_lines
from bnn_deploy.training.data import Images
from bnn_deploy.training.seeds import dice, seed_of

if TYPE_CHECKING:
    from bnn_deploy.training.step import Step

Recolour = Callable[[Image.Image], Image.Image]

# Of torchvision's RandomResizedCrop, which the papers' code uses as it is.
_RATIOS = (3 / 4, 4 / 3)
_ATTEMPTS = 10


class Augmented:
    """The images of one epoch of a step."""

    def __init__(self, images: Images, step: Step, seed: int, epoch: int) -> None:
        """Raises ToolError where the step needs torchvision and there is none that works."""
        self._images, self._step, self._seed, self._epoch = images, step, seed, epoch
        self._recolours = recolours(step)

    def prepared(self, index: int) -> np.ndarray:
        """Image ``index``, float32 ``preprocessing.shape``; raises InputError for a picture that cannot be read."""
        step, preprocessing = self._step, self._images.preprocessing
        drawn_for = (self._seed, step.name, self._epoch, "image", index)
        draws = dice(*drawn_for)
        image = self._images.load(index)
        rows, columns = preprocessing.crop
        if step.crop_scale < 1:
            box = random_box(image.size, step.crop_scale, draws)
            image = resized(image.crop(box), (columns, rows), preprocessing)
        else:
            image = middle(image, preprocessing, self._images.names[index])
        if draws.random() < step.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if step.shift:
            image = shifted(image, draws.randint(-step.shift, step.shift), draws.randint(-step.shift, step.shift))
        if self._recolours:
            image = recoloured(image, self._recolours, seed_of(*drawn_for, "colours"))
        return normalised(image, preprocessing)


def random_box(size: tuple[int, int], smallest: float, draws: random.Random) -> tuple[int, int, int, int]:
    """Part of an image of (width, height) ``size`` as torchvision's RandomResizedCrop draws it: left, top, right, bottom.

    Its area is uniform between ``smallest`` and 1 of the image's, the logarithm of width / height uniform between those of
    3/4 and 4/3; should it not fit ten times, it is the largest one in the middle whose sides are in that range.
    """
    width, height = size
    for _ in range(_ATTEMPTS):
        area = width * height * draws.uniform(smallest, 1)
        ratio = math.exp(draws.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            left, top = draws.randint(0, width - columns), draws.randint(0, height - rows)
            return left, top, left + columns, top + rows
    columns = min(width, max(1, round(height * _RATIOS[1])))
    rows = min(height, max(1, round(width / _RATIOS[0])))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def shifted(image: Image.Image, right: int, down: int) -> Image.Image:
    """``image`` moved by so many pixels; what comes in repeats the pixels at the edge."""
    pixels = np.asarray(image)
    rows = np.clip(np.arange(pixels.shape[0]) - down, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(pixels.shape[1]) - right, 0, pixels.shape[1] - 1)
    return Image.fromarray(pixels[rows][:, columns])


def recolours(step: Step) -> list[Recolour]:
    """torchvision's transforms that ``step`` asks for, in the order in which they are applied.

    Raises:
        ToolError: there are some, and torchvision is missing or does not load.
    """
    if not any(step.colour_jitter) and not step.random_augment:
        return []
    try:
        from torchvision.transforms import v2
    except ModuleNotFoundError as error:
        raise ToolError(
            f"The colour jitter or RandAugment of step {step.name!r} comes with torchvision, which is not installed; install the "
            f"torchvision made for torch {torch.__version__}, or set colour_jitter and random_augment to 0 in the recipe."
        ) from error
    except Exception as error:  # a torchvision made for another torch fails in many ways
        raise ToolError(
            f"The torchvision of step {step.name!r} does not load beside torch {torch.__version__} "
            f"({message_lines(error)[0]}); install the one made for it, or set colour_jitter and random_augment to 0 in the "
            "recipe."
        ) from error
    found: list[Recolour] = []
    if any(step.colour_jitter):
        found.append(v2.ColorJitter(*step.colour_jitter))
    if step.random_augment:
        found.append(v2.RandAugment(step.random_augment, step.random_augment_magnitude))
    return found


def recoloured(image: Image.Image, transforms: list[Recolour], seed: int) -> Image.Image:
    """``image`` in 8 bits after ``transforms``, which draw from torch's generator; its state stays as it was."""
    if image.mode == "F":
        image = Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 1) * 255).astype(np.uint8))
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would change the generators of GPUs, too.
        torch.default_generator.manual_seed(seed)
        for transform in transforms:
            image = transform(image)
    return image
