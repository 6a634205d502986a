"""The models by name: what they take, what the papers report of them, and how to build them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bnn_deploy.errors import InputError
from bnn_deploy.metadata.preprocessing import Preprocessing, digits, imagenet
from bnn_deploy.models.bcdnet import BCDNET_TINY, BCDNet, BCDNetR18
from bnn_deploy.models.bimlp import BIMLP_M, BIMLP_S, BIMLP_TINY, BiMLP
from bnn_deploy.models.images import ImageModel
from bnn_deploy.models.reactnet import ReActNetA, ReActNetR18

VARIANTS = ("paper", "released")
LARGEST_CLASS_COUNT = 1_000_000
LARGEST_INPUT_SIZE = 4096


@dataclass(frozen=True)
class ModelSpec:
    """One entry of ``MODELS``.

    Attributes:
        constructor: takes ``num_classes``, and ``variant`` where ``variants`` is not empty.
        description: a few words for help texts.
        variants: names accepted as ``variant``, the default first; empty where the model has none.
        input_size: default height and width in pixels.
        channels: channels of the input.
        num_classes: default class count.
        preprocessing: how its authors make its inputs of pictures, for a height and width in pixels.
    """

    constructor: Callable[..., ImageModel]
    description: str
    variants: tuple[str, ...] = ()
    input_size: int = 224
    channels: int = 3
    num_classes: int = 1000
    preprocessing: Callable[[int], Preprocessing] = imagenet

    @property
    def default_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return (self.channels, self.input_size, self.input_size)


MODELS: dict[str, ModelSpec] = {
    "bimlp_s": ModelSpec(partial(BiMLP, BIMLP_S), "BiMLP-S, a binary MLP", VARIANTS),
    "bimlp_m": ModelSpec(partial(BiMLP, BIMLP_M), "BiMLP-M, a deeper binary MLP", VARIANTS),
    "bcdnet_a": ModelSpec(BCDNet, "BCDNet-A, a binary CNN with a binary MLP stage"),
    "bcdnet_b": ModelSpec(partial(BCDNet, data_dependent=True), "BCDNet-B, BCDNet-A with data-dependent thresholds"),
    "bcdnet_a_r18": ModelSpec(BCDNetR18, "BCDNet-A on ResNet-18"),
    "bcdnet_b_r18": ModelSpec(partial(BCDNetR18, data_dependent=True), "BCDNet-B on ResNet-18"),
    "reactnet_a": ModelSpec(ReActNetA, "ReActNet-A, a binary MobileNet"),
    "reactnet_r18": ModelSpec(ReActNetR18, "ReActNet on ResNet-18"),
    "bimlp_tiny": ModelSpec(
        partial(BiMLP, BIMLP_TINY),
        "a small BiMLP for 8x8 digits",
        VARIANTS,
        input_size=8,
        channels=1,
        num_classes=10,
        preprocessing=digits,
    ),
    "bcdnet_tiny": ModelSpec(partial(BCDNet, BCDNET_TINY), "a small BCDNet-A for tests", input_size=32, num_classes=10),
}


def find_spec(name: str) -> ModelSpec:
    """The entry of ``MODELS``; raises InputError for an unknown name."""
    if name not in MODELS:
        raise InputError(f"There is no model {name!r}; choose one of {', '.join(MODELS)}.")
    return MODELS[name]


def input_shape(name: str, input_size: int | None = None) -> tuple[int, int, int]:
    """(channels, height, width) of one image for the model, at its default size or at ``input_size``."""
    spec = find_spec(name)
    size = spec.input_size if input_size is None else input_size
    return (spec.channels, size, size)


@dataclass(frozen=True)
class Architecture:
    """A model of ``MODELS`` with every choice made.

    Attributes:
        name: a key of ``MODELS``.
        variant: "" where the model has none.
        num_classes: outputs of the classifier.
        input_size: height and width in pixels that the model will be given. No parameter depends on it.
    """

    name: str
    variant: str
    num_classes: int
    input_size: int

    @property
    def spec(self) -> ModelSpec:
        """What all choices have in common."""
        return MODELS[self.name]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return (self.spec.channels, self.input_size, self.input_size)

    def build(self) -> ImageModel:
        """The model with fresh random weights, in evaluation mode: (N, *input_shape) float32 to logits (N, num_classes).

        Raises:
            InputError: images of this size do not fit the model.
        """
        options = {"variant": self.variant} if self.variant else {}
        model = self.spec.constructor(num_classes=self.num_classes, **options)
        model.images.check_size(self.input_size, self.input_size)
        model.eval()
        return model


def architecture(
    name: str,
    *,
    variant: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
) -> Architecture:
    """The model of that name with the choices given, and its own defaults for those that are None.

    Args:
        name: a key of ``MODELS``.
        variant: "paper" (the default) or "released", for BiMLP only.
        num_classes: outputs of the classifier.
        input_size: height and width in pixels.

    Raises:
        InputError: unknown name or variant, or a class count or size that no model can have.
    """
    spec = find_spec(name)
    if variant is not None and variant not in spec.variants:
        choices = f"choose {' or '.join(map(repr, spec.variants))}" if spec.variants else "leave the variant out"
        raise InputError(f"The model {name} has no variant {variant!r}; {choices}.")
    classes = spec.num_classes if num_classes is None else num_classes
    if not 1 <= classes <= LARGEST_CLASS_COUNT:
        raise InputError(f"A model cannot have {classes} classes; give a number from 1 to {LARGEST_CLASS_COUNT}.")
    size = spec.input_size if input_size is None else input_size
    if not 1 <= size <= LARGEST_INPUT_SIZE:
        raise InputError(f"Images cannot be {size} pixels wide; give a size from 1 to {LARGEST_INPUT_SIZE}.")
    return Architecture(name, variant or (spec.variants[0] if spec.variants else ""), classes, size)


def build_model(
    name: str,
    *,
    variant: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
) -> ImageModel:
    """``architecture(…).build()``; raises as both."""
    return architecture(name, variant=variant, num_classes=num_classes, input_size=input_size).build()
