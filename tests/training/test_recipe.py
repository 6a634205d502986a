"""Recipes: what is in those that come with the package, and what is refused in those of users."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bnn_deploy.errors import InputError
from bnn_deploy.models.names import MODEL_NAMES
from bnn_deploy.training.options import TrainOptions, check_options
from bnn_deploy.training.recipe import Recipe, load_recipe, recipe_names
from bnn_deploy.training.step import TEACHER_NAMES, Step
from bnn_deploy.training.stopping import stop_signals
from bnn_deploy.training.toml_file import LARGEST_FILE

ROOT = Path(__file__).parents[2]

GOOD = """
model = "bimlp_tiny"
[[steps]]
name = "float"
activations = "real"
weights = "real"
epochs = 2
batch_size = 8
learning_rate = 1e-3
[[steps]]
name = "binary"
start = "float"
teacher = "float"
epochs = 4
batch_size = 8
learning_rate = 1
warmup_epochs = 1
"""


def loaded(folder: Path, text: str) -> Recipe:
    (folder / "mine.toml").write_text(text)
    return load_recipe(folder / "mine.toml")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as raised:
        loaded(folder, text)
    message = str(raised.value)
    assert message.startswith(f"{folder / 'mine.toml'}: ") and message.endswith(".") and "\n" not in message
    assert len(message) < len(str(folder)) + 800
    return message


def step_with(**changes: Any) -> Step:
    return Step(**{"name": "binary", "epochs": 10, "batch_size": 4, "learning_rate": 0.1, **changes})


def test_every_model_has_a_recipe() -> None:
    """Breaks if a model cannot be trained without writing a recipe first, or a recipe of the package is refused."""
    assert set(MODEL_NAMES) <= set(recipe_names())
    for name in MODEL_NAMES:
        recipe = load_recipe(name)
        assert recipe.model == name and recipe.description
        last, before = recipe.steps[-1], recipe.steps[-2]
        # The two steps of the papers.
        assert (before.activations, before.weights) == ("binary", "real") and before.teacher
        assert last.is_binary and last.start == before.name and recipe.step(last.teacher).model


def test_numbers_of_the_papers() -> None:
    """Breaks if a recipe no longer has the numbers of its paper or of its authors' code."""
    for name in ("bimlp_s", "bimlp_m"):
        recipe = load_recipe(name)
        first, second = recipe.steps[-2:]
        assert [(step.distillation, step.gradient, step.optimizer, step.schedule) for step in (first, second)] == [
            (0.9, "clip", "adamw", "cosine")
        ] * 2
        teacher = recipe.step(first.teacher)
        assert (teacher.model, teacher.activations, teacher.weights) == ("", "real", "real")
        assert second.mixup and second.cutmix and second.random_augment
    for name in ("bcdnet_a", "bcdnet_b", "bcdnet_a_r18", "bcdnet_b_r18"):
        recipe = load_recipe(name)
        assert [step.label_smoothing for step in recipe.steps[1:]] == [0.1, 0.1]
        assert [step.learning_rate for step in recipe.steps[1:]] == [4e-3, 5e-4]
        assert recipe.steps[0].model == "resnet50" and recipe.steps[-1].gradient == "polynomial"
        # Iterations of the authors' files, in ImageNet's 1,281,167 images.
        assert [step.epochs for step in recipe.steps[1:]] == [
            round(300_000 * 256 / 1_281_167),
            round(600_000 * 256 / 1_281_167),
        ]
    for name, batch, rate in (("reactnet_a", 256, 1.25e-3), ("reactnet_r18", 512, 2.5e-3)):
        recipe = load_recipe(name)
        for step, decay in zip(recipe.steps[1:], (1e-5, 0.0), strict=True):
            found = (step.distillation, step.batch_size, step.learning_rate, step.epochs, step.schedule, step.optimizer)
            assert found == (1.0, batch, rate, 128, "linear", "adam") and step.weight_decay == decay


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if not name.endswith("tiny")])
def test_every_number_has_a_source(name: str) -> None:
    """Breaks if a number of a paper's recipe does not say where it comes from."""
    text = (ROOT / "bnn_deploy" / "training" / "recipes" / f"{name}.toml").read_text()
    numbers = re.findall(r"^(\w+ = [\[\d].*)$", text, flags=re.MULTILINE)
    assert len(numbers) > 10
    assert [line for line in numbers if " # " not in line] == ["epochs = 0"]


def test_recipes_survive_writing(tmp_path: Path) -> None:
    """Breaks if a run folder's recipe.toml, or what --print-recipe prints, is not the recipe."""
    for name in recipe_names():
        recipe = load_recipe(name)
        again = loaded(tmp_path, recipe.to_toml())
        assert again == recipe
    recipe = replace(loaded(tmp_path, GOOD), description='"ü" \\ #', variant="released", input_size=16)
    odd = replace(recipe.steps[-1], colour_jitter=(0.1, 0.2, 0.3, 0.5), learning_rate=1e-300, decay_all=True, shift=3)
    recipe = replace(recipe, steps=(*recipe.steps[:-1], odd))
    assert loaded(tmp_path, recipe.to_toml()) == recipe


def test_defaults_and_whole_numbers(tmp_path: Path) -> None:
    """Breaks if `learning_rate = 1` is refused, or what is left out is not the default."""
    recipe = loaded(tmp_path, GOOD)
    assert (recipe.variant, recipe.description, recipe.input_size) == (None, "", None)
    last = recipe.steps[-1]
    assert type(last.learning_rate) is float and last == step_with(
        start="float", teacher="float", epochs=4, batch_size=8, learning_rate=1.0, warmup_epochs=1.0
    )


def test_other_epochs_and_batches() -> None:
    """Breaks if --epochs makes a warm-up longer than the training, or trains a step whose weights are given."""
    recipe = load_recipe("bcdnet_a").with_(epochs=2, batch_size=16)
    given, first, second = recipe.steps
    assert (given.epochs, given.batch_size) == (0, 0)
    # 3 of 60 epochs, now of 2.
    assert (first.epochs, first.batch_size, first.warmup_epochs) == (2, 16, pytest.approx(0.1))
    assert (second.epochs, second.warmup_epochs) == (2, 0.0)
    assert load_recipe("bcdnet_a").with_() == load_recipe("bcdnet_a")


NUMBERS = [entry.name for entry in fields(Step) if type(entry.default) in (int, float) or entry.name == "epochs"]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "true", '"3"', "[1]", "1979-05-27", "9" * 400, "1e300"])
def test_numbers_out_of_range(key: str, value: str, tmp_path: Path) -> None:
    """Breaks if a number that cannot be trained with gets through, or the sentence does not say which one it is."""
    head, _, tail = GOOD.rpartition('name = "binary"\n')
    tail = re.sub(rf"^{key} = .*\n", "", tail, flags=re.MULTILINE)
    message = refusal(tmp_path, f'{head}name = "binary"\n{key} = {value}\n{tail}')
    assert f"step 'binary': {key} is " in message and ", expected " in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../binary"}, "name is '../binary', expected a name of a-z"),
        ({"name": "weights"}, "other than checkpoint and weights"),
        ({"name": "x" * 10_000}, "expected a name of a-z"),
        ({"name": 3}, "step 3: name is 3"),
        ({"activations": "ternary"}, "activations is 'ternary', expected 'binary' or 'real'"),
        ({"optimizer": "sgd"}, "expected 'adamw' or 'adam'"),
        ({"gradient": "tanh"}, "expected 'clip' or 'polynomial'"),
        ({"model": "vgg"}, "expected 'resnet18' or 'resnet34' or 'resnet50' or 'resnet_tiny'"),
        ({"model": "resnet18"}, "a resnet18 is not binary"),
        ({"decay_all": 1}, "decay_all is 1, expected true or false"),
        ({"colour_jitter": (0.1, 0.1, 0.1)}, "four numbers"),
        ({"colour_jitter": (0.1, 0.1, 0.1, 0.6)}, "hue from 0 to 0.5"),
        ({"colour_jitter": (float("nan"), 0, 0, 0)}, "four numbers"),
        ({"crop_scale": 0}, "crop_scale is 0, expected a number above 0 to 1"),
        ({"average": 1}, "average is 1, expected a number from 0 and below 1"),
        ({"epochs": 1.0}, "epochs is 1.0, expected a whole number"),
        ({"batch_size": 0}, "batch_size is missing"),
        ({"learning_rate": 0}, "learning_rate is missing or 0"),
        ({"warmup_epochs": 11}, "warmup_epochs is 11 of 10 epochs"),
        ({"final_learning_rate": 0.2}, "final_learning_rate is 0.2, above the learning_rate of 0.1"),
    ],
)
def test_steps_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    """Breaks if a step that cannot be trained, or whose file would lie outside the run's folder, is made."""
    with pytest.raises(InputError, match=re.escape(words)):
        step_with(**changes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 4", "", "step 'binary': epochs is missing; add it."),
        (
            "epochs = 4",
            "epochs = 4\nepoch = 4",
            "step 'binary': there is no entry 'epoch'; the entries are name, model",
        ),
        ('model = "bimlp_tiny"', "", "model is missing"),
        ('model = "bimlp_tiny"', 'model = "bimlp"', "model is 'bimlp', expected 'bimlp_s' or"),
        ('model = "bimlp_tiny"', 'model = "bimlp_tiny"\nvariant = "other"', "variant is 'other'"),
        ('model = "bimlp_tiny"', 'model = "bimlp_tiny"\ninput_size = 0', "input_size is 0"),
        ('model = "bimlp_tiny"', 'model = "bimlp_tiny"\nname = "x"', "there is no entry 'name'"),
        (
            'model = "bimlp_tiny"',
            'model = "bimlp_tiny"\ndescription = "a\\nb"',
            "description is 'a\\nb', expected printable text of at most 1000 characters",
        ),
        ('name = "binary"', 'name = "float"', "there are two steps of this name"),
        ('start = "float"', 'start = "binary"', "start is 'binary', which is no step before it (float)"),
        ('teacher = "float"', 'teacher = "cnn"', "teacher is 'cnn', which is no step before it (float)"),
        ('name = "float"', 'name = "float"\nmodel = "resnet18"', "start is 'float', which trains another model"),
        ('start = "float"', 'weights = "real"', "it is the last one, so it must train the recipe's model with binary"),
        ("epochs = 4", "epochs = 0\n#", "for at least one epoch"),
        ("[[steps]]", "[[stages]]", "there is no entry 'stages'"),
        (GOOD, 'model = "bimlp_tiny"\nsteps = []', "it has 0 steps"),
        (GOOD, 'model = "bimlp_tiny"\nsteps = "two"', "steps is 'two', expected tables"),
        (GOOD, "model = ", "is no TOML"),
        (GOOD, "x = " + "[" * 100_000, "is no TOML"),
        (GOOD, "#" * (LARGEST_FILE + 1), f"has more than {LARGEST_FILE} bytes"),
    ],
)
def test_files_that_cannot_be(old: str, new: str, words: str, tmp_path: Path) -> None:
    """Breaks if a wrong recipe is followed, crashes the reader, or is refused without saying where and why."""
    assert old in GOOD
    text = GOOD.replace(old, new)
    if old == "epochs = 4":
        text = text.replace("warmup_epochs = 1\n", "")
    assert words in refusal(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    """Breaks if a missing recipe, a folder or a binary file ends in a traceback."""
    with pytest.raises(InputError, match="There is no recipe 'bimlp'; choose one of bcdnet_a, "):
        load_recipe("bimlp")
    for name in ("absent.toml", "folder.toml"):
        (tmp_path / "folder.toml").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"is not a file; give a recipe in TOML\."):
            load_recipe(tmp_path / name)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no TOML"):
        load_recipe(tmp_path / "binary.toml")


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    """Breaks if a run starts without the weights that it needs, or with a batch that cannot be divided evenly."""
    recipe = load_recipe("reactnet_a")
    with pytest.raises(InputError, match=r"step 'cnn' \(resnet34\) is not trained .* --teacher cnn=FILE"):
        check_options(recipe, TrainOptions(), processes=1)
    given = {"cnn": tmp_path / "resnet34.pth"}
    check_options(recipe, TrainOptions(teachers=given, accumulate=8), processes=32)
    with pytest.raises(
        InputError, match=r"256 images of the step 'binary_activations' cannot .* 3 equal parts \(3 processes"
    ):
        check_options(recipe, TrainOptions(teachers=given), processes=3)
    with pytest.raises(InputError, match="has 256 images for 256 passes, but a normalisation over a single image"):
        check_options(recipe, TrainOptions(teachers=given, accumulate=256), processes=1)
    with pytest.raises(InputError, match="has no step 'resnet'; its steps are cnn, binary_activations, binary"):
        check_options(recipe, TrainOptions(teachers={"resnet": tmp_path}), processes=1)
    with pytest.raises(InputError, match="'binary' is what is to be trained"):
        check_options(recipe, TrainOptions(teachers={**given, "binary": tmp_path}), processes=1)


def test_teachers_are_those_that_can_be_built() -> None:
    """Breaks if a recipe may name a teacher that the package does not have, or not one that it has."""
    from bnn_deploy.models import float_resnet

    assert float_resnet.TEACHER_NAMES == TEACHER_NAMES


def test_entries_are_documented() -> None:
    """Breaks if an entry is added that docs/cli.md does not explain."""
    section = (ROOT / "docs" / "cli.md").read_text().partition("| entry | default |")[2].partition("\n## ")[0]
    documented = re.findall(
        r"`(\w+)`", " ".join(line.split("|")[1] for line in section.splitlines() if line[:3] == "| `")
    )
    assert documented and sorted(documented) == sorted(entry.name for entry in fields(Step))


def test_signals_become_a_wish() -> None:
    """Breaks if Ctrl-C stops a run between two lines, SIGTERM is not seen, or a run that hangs cannot be ended."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        assert stop() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
