"""The wheel's package list, against the tree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = ("passes", "targets", "models")

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def packages_in_tree() -> set[str]:
    """Dotted names under which the folders with Python files install."""
    found = set()
    for top in ("bnn_deploy", *TOP_LEVEL):
        for initial in (ROOT / top).rglob("__init__.py"):
            parts = initial.parent.relative_to(ROOT).parts
            found.add(".".join(parts if top == "bnn_deploy" else ("bnn_deploy", *parts)))
    return found


def test_package_list_matches_tree() -> None:
    """A new folder would be missing from the wheel, and only users without a checkout would notice."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(configuration["packages"]) == packages_in_tree()


def test_every_python_folder_is_a_package() -> None:
    """A folder without __init__.py works in a checkout as a namespace package and is missing from the wheel."""
    for top in ("bnn_deploy", *TOP_LEVEL):
        for source in (ROOT / top).rglob("*.py"):
            assert (source.parent / "__init__.py").is_file(), f"{source.parent} has Python files but no __init__.py"


def test_c_sources_are_package_data() -> None:
    """The linker compiles the runtime's C sources at the user's; a wheel without them cannot compile any model."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = configuration["package-data"]["bnn_deploy.runtime"]
    folder = ROOT / "bnn_deploy" / "runtime"
    sources = {path.relative_to(folder) for path in folder.rglob("*.[!p]*") if path.suffix != ".pyc"}
    packed = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}
    assert sources and sources == packed
