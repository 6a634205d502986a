"""The public interface: what ``bnn_deploy.__all__`` promises, and docs/api.md shows, is there, typed, and works as shown."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bnn_deploy

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_page_shows_every_name() -> None:
    """Breaks if a public name is not documented."""
    assert not [name for name in bnn_deploy.__all__ if not re.search(rf"`{name}\b", PAGE)]


def test_names_are_those_of_the_type_checker() -> None:
    """Breaks if a name is found at run time in another module than type checkers are told, or not at all."""
    source = Path(bnn_deploy.__file__).read_text()
    for home, names in re.findall(r"^    from (bnn_deploy[\w.]+) import (.+)$", source, re.MULTILINE):
        for name in names.split(", "):
            assert f'"{name}": "{home}"' in source, f"{name} is {home}'s for type checkers only"
    for name in bnn_deploy.__all__:
        assert getattr(bnn_deploy, name) is not None


@pytest.mark.parametrize("name", [name for name in bnn_deploy.__all__ if name != "__version__"])
def test_every_name_is_typed_and_described(name: str) -> None:
    """Breaks if a public function has no docstring, or an argument without a type."""
    value = getattr(bnn_deploy, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        annotated = set(value.__annotations__)
        assert {*inspect.signature(value).parameters, "return"} == annotated, f"{name} has arguments without types"


def test_unknown_names_are_refused() -> None:
    """Breaks if a typing mistake gives anything but AttributeError, so that hasattr() lies."""
    assert not hasattr(bnn_deploy, "compile_modle")


def test_page_runs_as_it_stands(tmp_path: Path) -> None:
    """Breaks if what docs/api.md shows does not run, or prints something else."""
    program, printed = re.findall(r"```(?:python|text)\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
