"""A step of a recipe, and what its entries may be."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from bnn_deploy.checked_fields import Rule, Unfit, choice, flag, list_of, number, shown, whole
from bnn_deploy.errors import InputError

# Those of models.float_resnet, which would import torch; a test compares them.
TEACHER_NAMES = ("resnet18", "resnet34", "resnet50", "resnet_tiny")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
# Files of a run folder that are not a step's.
_RESERVED_NAMES = ("checkpoint", "weights")

Precision = Literal["binary", "real"]


@dataclass(frozen=True)
class Step:
    """One network, trained once.

    Attributes:
        name: of the step, and of the file with its weights.
        model: a teacher ("resnet18", "resnet34", "resnet50", "resnet_tiny"); empty: the recipe's model.
        activations: what the model's binarisations of activations do; "real" leaves the values as they are.
        weights: the same for its binary weights. Teachers are "real" in both.
        start: the earlier step of the same model whose weights it starts from; empty: fresh random weights.
        teacher: the earlier step whose logits it learns from; empty: none.
        distillation: a of the loss a KL + (1 - a) CE (BiMLP Eq. 13); without a teacher the loss is CE.
        label_smoothing: share of every label that is spread over all classes, in CE.
        gradient: of the sign, "clip" (BiMLP Eq. 3) or "polynomial" (BCDNet Eq. 2); empty: the model's own.
        epochs: passes over the training images; 0: the step's weights come from a file (``TrainOptions.teachers``).
        batch_size: images of one optimizer step, over all processes and accumulations.
        learning_rate: the largest of the schedule.
        optimizer: "adamw" (decoupled weight decay) or "adam" (decay added to the gradient).
        weight_decay: of the weights of convolutions and linear layers.
        decay_all: also of biases, normalisations, PReLU slopes and thresholds.
        schedule: how the rate falls to ``final_learning_rate`` after the warm-up: "cosine", "linear", or "constant".
        warmup_epochs: in which the rate rises linearly.
        warmup_start: the rate at their beginning, as a share of ``learning_rate``.
        final_learning_rate: at the end of the last epoch.
        gradient_clip: largest norm of all gradients together; 0: any.
        average: decay of an exponential moving average of the weights per optimizer step; 0: no average.
        crop_scale: smallest area of a random crop, as a share of the image; 1: resized and cropped at the centre.
        flip: probability of a mirror image.
        shift: most pixels of a random translation.
        colour_jitter: brightness, contrast, saturation, hue (torchvision's ColorJitter); all 0: none.
        random_augment: operations of RandAugment per image; 0: none.
        random_augment_magnitude: of these, 0 to 30.
        mixup: alpha of Mixup; 0: none.
        cutmix: alpha of CutMix; 0: none. With both, each batch takes one of them.
    """

    name: str
    _: KW_ONLY
    model: str = ""
    activations: Precision = "binary"
    weights: Precision = "binary"
    start: str = ""
    teacher: str = ""
    distillation: float = 0.9
    label_smoothing: float = 0.0
    gradient: str = ""
    epochs: int
    batch_size: int = 0
    learning_rate: float = 0.0
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = 0.0
    decay_all: bool = False
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0
    final_learning_rate: float = 0.0
    gradient_clip: float = 0.0
    average: float = 0.0
    crop_scale: float = 1.0
    flip: float = 0.0
    shift: int = 0
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    random_augment: int = 0
    random_augment_magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        """Raise InputError for the first entry that cannot be."""
        for name, rule in _RULES.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, rule(value))
            except Unfit as error:
                raise self.error(f"{name}{error}; change it") from None
        if self.epochs and not self.batch_size:
            raise self.error("batch_size is missing; give the number of images of one optimizer step")
        if self.epochs and not self.learning_rate:
            raise self.error("learning_rate is missing or 0; give one above 0")
        if self.model and (self.activations, self.weights) != ("real", "real"):
            raise self.error(f'a {self.model} is not binary; write activations = "real" and weights = "real"')
        if self.warmup_epochs > self.epochs:
            raise self.error(f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs; give fewer")
        if self.final_learning_rate > self.learning_rate:
            raise self.error(
                f"final_learning_rate is {self.final_learning_rate:g}, above the learning_rate of "
                f"{self.learning_rate:g}; give a smaller one"
            )

    @property
    def is_binary(self) -> bool:
        """Whether both activations and weights are, so that the result can be deployed."""
        return (self.activations, self.weights) == ("binary", "binary")

    def error(self, sentence: str) -> InputError:
        """An error that names the step; ``sentence`` without its full stop."""
        return InputError(f"step {shown(self.name)}: {sentence}.")


def _step_name(value: object) -> str:
    """A name that can be a file's, and is none of the run folder's own."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value in _RESERVED_NAMES:
        raise Unfit(value, f"a name of a-z, 0-9 and _, other than {' and '.join(_RESERVED_NAMES)}")
    return value


def _optional_name(value: object) -> str:
    """A step's name, or nothing."""
    return "" if value == "" else _step_name(value)


def _jitter(value: object) -> tuple[float, ...]:
    """Brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them."""
    try:
        shares = list_of(number(0, 1), least=4, most=4)(value)
        return (*shares[:3], number(0, 0.5)(shares[3]))
    except Unfit as error:
        expected = "four numbers: brightness, contrast and saturation from 0 to 1, hue from 0 to 0.5"
        raise Unfit(error.found, expected, error.place) from None


_RULES: dict[str, Rule[Any]] = {
    "name": _step_name,
    "model": choice("", *TEACHER_NAMES),
    "activations": choice("binary", "real"),
    "weights": choice("binary", "real"),
    "start": _optional_name,
    "teacher": _optional_name,
    "distillation": number(0, 1),
    "label_smoothing": number(0, 1, below=True),
    "gradient": choice("", "clip", "polynomial"),
    "epochs": whole(0, 100_000),
    "batch_size": whole(0, 2**20),
    "learning_rate": number(0, 1000),
    "optimizer": choice("adamw", "adam"),
    "weight_decay": number(0, 10),
    "decay_all": flag,
    "schedule": choice("cosine", "linear", "constant"),
    "warmup_epochs": number(0, 100_000),
    "warmup_start": number(0, 1),
    "final_learning_rate": number(0, 1000),
    "gradient_clip": number(0, 1e6),
    "average": number(0, 1, below=True),
    "crop_scale": number(0, 1, above=True),
    "flip": number(0, 1),
    "shift": whole(0, 256),
    "colour_jitter": _jitter,
    "random_augment": whole(0, 14),
    "random_augment_magnitude": whole(0, 30),
    "mixup": number(0, 100),
    "cutmix": number(0, 100),
}
