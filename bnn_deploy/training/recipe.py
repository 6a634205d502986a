"""A recipe: the steps of a training run, in TOML, checked strictly.

``Recipe`` and ``Step`` refuse with one sentence whatever could not be trained, so that the rest of the package need not
look again. ``recipes/`` holds one for every model; where their numbers come from stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from bnn_deploy.errors import InputError
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.training import recipe_rules as rules
from bnn_deploy.training.toml_file import read_toml, toml_text

# Those of models.float_resnet, which would import torch; a test compares them.
TEACHER_NAMES = ("resnet18", "resnet34", "resnet50", "resnet_tiny")
_FOLDER = Path(__file__).parent / "recipes"
_MOST_STEPS = 16

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
        for name, rule in _STEP_RULES.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, rule(value))
            except rules.Unfit as error:
                raise self.error(f"{name} is {rules.shown(value)}, expected {error}; change it") from None
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
        return InputError(f"step {rules.shown(self.name)}: {sentence}.")


_STEP_RULES: dict[str, rules.Rule] = {
    "name": rules.step_name,
    "model": rules.choice("", *TEACHER_NAMES),
    "activations": rules.choice("binary", "real"),
    "weights": rules.choice("binary", "real"),
    "start": rules.optional_name,
    "teacher": rules.optional_name,
    "distillation": rules.number(0, 1),
    "label_smoothing": rules.number(0, 1, below=True),
    "gradient": rules.choice("", "clip", "polynomial"),
    "epochs": rules.whole(0, 100_000),
    "batch_size": rules.whole(0, 2**20),
    "learning_rate": rules.number(0, 1000),
    "optimizer": rules.choice("adamw", "adam"),
    "weight_decay": rules.number(0, 10),
    "decay_all": rules.flag,
    "schedule": rules.choice("cosine", "linear", "constant"),
    "warmup_epochs": rules.number(0, 100_000),
    "warmup_start": rules.number(0, 1),
    "final_learning_rate": rules.number(0, 1000),
    "gradient_clip": rules.number(0, 1e6),
    "average": rules.number(0, 1, below=True),
    "crop_scale": rules.number(0, 1, above=True),
    "flip": rules.number(0, 1),
    "shift": rules.whole(0, 256),
    "colour_jitter": rules.jitter,
    "random_augment": rules.whole(0, 14),
    "random_augment_magnitude": rules.whole(0, 30),
    "mixup": rules.number(0, 100),
    "cutmix": rules.number(0, 100),
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        model: a name of ``models.names``.
        variant: "paper" or "released" (BiMLP); None: the model's default.
        description: one line.
        steps: in their order; the last one makes the binary network that is deployed.
        input_size: height and width of the images in pixels; None: the model's own.
    """

    model: str
    variant: str | None
    description: str
    steps: tuple[Step, ...]
    input_size: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for the first entry that cannot be."""
        for name, rule in _RECIPE_RULES.items():
            value = getattr(self, name)
            if value is None and name in ("variant", "input_size"):
                continue
            try:
                rule(value)
            except rules.Unfit as error:
                raise InputError(f"{name} is {rules.shown(value)}, expected {error}; change it.") from None
        object.__setattr__(self, "steps", tuple(self.steps))
        if not 1 <= len(self.steps) <= _MOST_STEPS:
            raise InputError(f"it has {len(self.steps)} steps, expected 1 to {_MOST_STEPS}; write each as [[steps]].")
        earlier: dict[str, Step] = {}
        for step in self.steps:
            _check_order(step, earlier)
            earlier[step.name] = step
        last = self.steps[-1]
        if last.model or not last.is_binary or not last.epochs:
            raise last.error(
                "it is the last one, so it must train the recipe's model with binary activations and weights for at least "
                "one epoch; add a step that does, or change it"
            )

    def step(self, name: str) -> Step:
        """The step of that name; raises KeyError."""
        return {step.name: step for step in self.steps}[name]

    def with_(self, epochs: int | None = None, batch_size: int | None = None) -> Recipe:
        """The recipe with other epochs, or another batch size, in every step that trains.

        A warm-up stays the same share of the epochs; learning rates stay as they are.
        """
        steps = []
        for step in self.steps:
            changes: dict[str, Any] = {}
            if epochs is not None and step.epochs:
                changes.update(epochs=epochs, warmup_epochs=step.warmup_epochs * epochs / step.epochs)
            if batch_size is not None and step.epochs:
                changes["batch_size"] = batch_size
            steps.append(replace(step, **changes))
        return replace(self, steps=tuple(steps))

    def to_toml(self) -> str:
        """The recipe as ``load_recipe`` reads it, without comments and without entries that have their default."""
        head = {name: getattr(self, name) for name in _RECIPE_RULES}
        return toml_text(
            {name: value for name, value in head.items() if value is not None},
            {"steps": [_step_entries(step) for step in self.steps]},
        )


_RECIPE_RULES: dict[str, rules.Rule] = {
    "model": rules.choice(*MODEL_NAMES),
    "variant": rules.choice("paper", "released"),
    "description": rules.text,
    "input_size": rules.whole(1, 4096),
}


def recipe_names() -> tuple[str, ...]:
    """The names of the recipes that come with the package; every model has one of its own name."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        name_or_path: a name of ``recipe_names()``, or a .toml file.

    Raises:
        InputError: there is none; or the file is too large, no TOML, has an unknown entry, lacks one, or has one of a wrong
            type or out of range. The sentence names file, step and entry.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in recipe_names():
        path = _FOLDER / f"{name_or_path}.toml"
    elif path.suffix != ".toml":
        raise InputError(
            f"There is no recipe {rules.shown(str(name_or_path))}; choose one of {', '.join(recipe_names())}, or give a "
            ".toml file."
        )
    content = read_toml(path)
    try:
        return _recipe_of(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _recipe_of(content: Mapping[str, Any]) -> Recipe:
    _check_keys(content, Recipe, "", optional=("variant", "description"))
    entries = content["steps"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"steps is {rules.shown(entries)}, expected tables; write each as [[steps]].")
    steps = []
    for number, entry in enumerate(entries, 1):
        _check_keys(entry, Step, f"step {rules.shown(entry.get('name', number))}: ")
        steps.append(Step(**entry))
    return Recipe(
        model=content["model"],
        variant=content.get("variant"),
        description=content.get("description", ""),
        steps=tuple(steps),
        input_size=content.get("input_size"),
    )


def _check_keys(found: Mapping[str, Any], kind: type, where: str, optional: tuple[str, ...] = ()) -> None:
    known = {entry.name: entry.default is MISSING and entry.name not in optional for entry in fields(kind)}
    for key in found:
        if key not in known:
            raise InputError(f"{where}there is no entry {rules.shown(key)}; the entries are {', '.join(known)}.")
    for key, required in known.items():
        if required and key not in found:
            raise InputError(f"{where}{key} is missing; add it.")


def _check_order(step: Step, earlier: Mapping[str, Step]) -> None:
    if step.name in earlier:
        raise step.error("there are two steps of this name; rename one")
    for key in ("start", "teacher"):
        name = getattr(step, key)
        if name and name not in earlier:
            before = ", ".join(earlier) or "none"
            raise step.error(f"{key} is {name!r}, which is no step before it ({before}); change it")
    if step.start and earlier[step.start].model != step.model:
        raise step.error(f"start is {step.start!r}, which trains another model; start from one of the same model")


def _step_entries(step: Step) -> dict[str, Any]:
    defaults = {entry.name: entry.default for entry in fields(Step)}
    entries = {name: getattr(step, name) for name in defaults}
    return {name: value for name, value in entries.items() if value != defaults[name]}
