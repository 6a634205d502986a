"""A recipe: the steps of a training run, in TOML, checked strictly.

``Recipe`` and ``Step`` refuse with one sentence whatever could not be trained, so that the rest of the package need not
look again. ``recipes/`` holds one for every model; where their numbers come from stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bnn_deploy.checked_fields import Rule, Unfit, choice, printable_text, shown, whole
from bnn_deploy.errors import InputError
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.training.step import Step
from bnn_deploy.training.toml_file import read_toml, toml_text

_FOLDER = Path(__file__).parent / "recipes"
_MOST_STEPS = 16


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
            except Unfit as error:
                raise InputError(f"{name}{error}; change it.") from None
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


_RECIPE_RULES: dict[str, Rule[Any]] = {
    "model": choice(*MODEL_NAMES),
    "variant": choice("paper", "released"),
    "description": printable_text(1000),
    "input_size": whole(1, 4096),
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
            f"There is no recipe {shown(str(name_or_path))}; choose one of {', '.join(recipe_names())}, or give a "
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
        raise InputError(f"steps is {shown(entries)}, expected tables; write each as [[steps]].")
    steps = []
    for index, entry in enumerate(entries, 1):
        _check_keys(entry, Step, f"step {shown(entry.get('name', index))}: ")
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
            raise InputError(f"{where}there is no entry {shown(key)}; the entries are {', '.join(known)}.")
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
