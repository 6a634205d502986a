"""How a model's images are made of pictures: resize, centre crop, scale and normalise, stored with the model as JSON.

`export` writes it to the ONNX metadata entry ``bnn_deploy.preprocessing``, and `compile` copies it to the bundle's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnn_deploy.errors import InputError, ModelFileError, message_lines
from bnn_deploy.metadata import entries

VERSION = 1
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CHANNELS = {"RGB": 3, "grey": 1}
LARGEST_SIDE = 8192
# A mean or deviation beyond is no description of pixels in [0, 1], and could overflow float32.
LARGEST_NUMBER = 1e6
_MOST_CHARACTERS = 4096


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded picture to a model's input, float32 (channels, *crop), as torchvision's transforms do it.

    Attributes:
        resize: length in pixels that the shorter side is resized to; the longer one becomes
            ``int(resize * longer / shorter)``. A picture whose shorter side has that length stays as it is.
        interpolation: one of ``INTERPOLATIONS``, with Pillow's meaning: smoothed where it makes smaller.
        crop: height and width of the middle part that is kept, neither above ``resize``.
        channels: "RGB" or "grey"; pictures of other kinds are converted.
        mean, std: per channel, of pixels divided by 255: input = (pixel / 255 - mean) / std, each step in float32.
    """

    resize: int
    interpolation: str
    crop: tuple[int, int]
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError with what is wrong."""
        _require_side("resize", self.resize)
        if len(self.crop) != 2:
            raise ValueError(f"crop is {list(self.crop)!r}, expected a height and a width")
        for side in self.crop:
            _require_side("crop", side)
        if max(self.crop) > self.resize:
            raise ValueError(f"crop {list(self.crop)} is larger than resize {self.resize}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}")
        if self.channels not in tuple(CHANNELS):  # which compares, and so takes what cannot be hashed
            raise ValueError(f"channels is {self.channels!r}, expected one of {', '.join(CHANNELS)}")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != CHANNELS[self.channels] or not all(_is_number(number) for number in numbers):
                raise ValueError(
                    f"{name} is {str(list(numbers))[:60]}, expected a number below {LARGEST_NUMBER:g} for each channel"
                )
        if min(self.std) < 1 / LARGEST_NUMBER:
            raise ValueError(f"std is {list(self.std)}, expected numbers of at least {1 / LARGEST_NUMBER:g}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one input."""
        return (CHANNELS[self.channels], *self.crop)

    def to_json(self) -> str:
        """The metadata entry; ``scale`` is there for other readers, and says what pixels are multiplied by."""
        return json.dumps({"version": VERSION, **asdict(self), "scale": "1/255"}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """What ``to_json`` wrote, or anybody else.

        Raises:
            ValueError: it cannot be understood, or asks for impossible sizes.
        """
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"it has {len(text)} characters")
        try:
            entry = json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(entry, dict) or entry.get("version") != VERSION or entry.get("scale", "1/255") != "1/255":
            raise ValueError(f'expected a JSON object with "version": {VERSION} and "scale": "1/255"')
        fields = set(cls.__dataclass_fields__)
        wrong = fields.symmetric_difference(set(entry) - {"version", "scale"})
        if wrong:
            name = min(wrong)
            raise ValueError(f"{name[:40]!r} is {'missing' if name in fields else 'unknown'}")
        lists = {name: _numbers(name, entry[name]) for name in ("crop", "mean", "std")}
        return cls(entry["resize"], entry["interpolation"], channels=entry["channels"], **lists)


def imagenet(size: int) -> Preprocessing:
    """Of models trained on ImageNet: shorter side to 256, middle 224; for another ``size`` in the same proportion.

    The evaluation code of ReActNet (liuzechun/ReActNet, mobilenet/2_step2/train.py) and of BCDNet (Sense-GVT/BCDNet,
    prototype/data/imagenet_dataloader.py, ONECROP) is torchvision's Resize(256), bilinear, and CenterCrop(224). BiMLP's
    (mindspore-ai/models, research/cv/BiMLP/src/dataset.py) has the same sizes and numbers in MindSpore, whose bilinear
    resize does not smooth what it makes smaller, so single pixels differ from here.
    """
    return Preprocessing(
        resize=round(size * 256 / 224),
        interpolation="bilinear",
        crop=(size, size),
        channels="RGB",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def digits(size: int, channels: str = "grey") -> Preprocessing:
    """Of models trained on scikit-learn's digits: pixels scaled to -1..1."""
    halves = (0.5,) * CHANNELS[channels]
    return Preprocessing(
        resize=size, interpolation="bilinear", crop=(size, size), channels=channels, mean=halves, std=halves
    )


def preprocessing_of(metadata: Mapping[str, Any], source: str) -> Preprocessing | None:
    """What the metadata of an ONNX file, or ``manifest["model"]`` of a bundle, say; None if they say nothing.

    Args:
        metadata: of a file that nobody vouches for.
        source: its name, for messages.

    Raises:
        ModelFileError: an entry that cannot be understood.
    """
    text = metadata.get(entries.PREPROCESSING)
    if text is None:
        return None
    try:
        if not isinstance(text, str):
            raise ValueError("it is not a text")
        return Preprocessing.from_json(text)
    except ValueError as error:
        raise ModelFileError(
            f"{source}: its metadata entry {entries.PREPROCESSING} cannot be used ({message_lines(error)[0]}); "
            "correct it as docs/data.md says, or export the model again."
        ) from error


def required_preprocessing(metadata: Mapping[str, Any], source: str, shape: tuple[int, ...]) -> Preprocessing:
    """The same, for inputs of ``shape`` (without batch).

    Raises:
        InputError: nothing is said, or the images would have another shape.
    """
    found = preprocessing_of(metadata, source)
    if found is None:
        raise InputError(
            f"{source}: does not say how its inputs are made of pictures, so neither pictures nor digits can be used; add "
            f"the metadata entry {entries.PREPROCESSING} to the ONNX file and compile it again (docs/data.md shows how), or "
            "give the inputs as .npz."
        )
    if found.shape != shape:
        raise InputError(
            f"{source}: its metadata entry {entries.PREPROCESSING} makes images of shape {found.shape}, but the model "
            f"takes {shape}; correct the entry."
        )
    return found


def _require_side(name: str, side: object) -> None:
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= LARGEST_SIDE:
        raise ValueError(f"{name} is {str(side)[:40]}, expected a whole number of pixels from 1 to {LARGEST_SIDE}")


def _is_number(number: object) -> bool:
    # The comparison is false for NaN and infinities, and needs no float of a long integer.
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < LARGEST_NUMBER


def _numbers(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return tuple(value)
