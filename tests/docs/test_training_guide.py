"""docs/training.md: its commands, its recipe and its Python work as they stand, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bnn_deploy.training.recipe import load_recipe
from tests.docs.documents import documented_commands, newcomers_environment, run_documented
from tests.docs.test_guides import missing_lines

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "training.md").read_text()


def blocks(language: str) -> list[str]:
    """The contents of the guide's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)


def test_commands_of_the_guide(tmp_path: Path) -> None:
    """Breaks if somebody with own images who types the guide's commands gets an error, or sees other things than it shows."""
    environment = newcomers_environment(tmp_path / "programs")
    folder = tmp_path / "work"
    folder.mkdir()
    for documented in documented_commands(GUIDE):
        done = run_documented(documented.command, folder, environment)
        missing = list(missing_lines(documented.output, done.stderr + done.stdout))
        assert not missing, f"{documented.command}\nlacks {missing}\n{done.stderr}{done.stdout}"
    made = {path.name for path in (folder / "run").iterdir()}
    listed = re.findall(r"^\| (`\w+\.\w+`.*?) \|", GUIDE, flags=re.MULTILINE)
    assert made >= {name for names in listed for name in re.findall(r"`([\w.]+)`", names)}


def test_python_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if somebody who copies the guide's Python gets an error."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    assert (tmp_path / "python_run" / "weights.safetensors").is_file()


def test_recipe_of_the_guide(tmp_path: Path) -> None:
    """Breaks if the recipe that the guide shows is refused."""
    (text,) = blocks("toml")
    (tmp_path / "my.toml").write_text(text)
    assert [step.name for step in load_recipe(tmp_path / "my.toml").steps] == ["cnn", "binary_activations", "binary"]
