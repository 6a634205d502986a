"""CONTRIBUTING.md and docs/contributing: what they name exists, and what they tell newcomers to paste still fits."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.source_tree import MODULES, ROOT, module_name

FOLDER = ROOT / "docs" / "contributing"
PAGES = sorted(FOLDER.glob("*.md"))
TEXTS = [ROOT / "CONTRIBUTING.md", *PAGES]
# Names of what a page adds, for the length of the page.
THROW_AWAY = re.compile(r"my[_-]")
# What commands make, and folders that git does not keep.
MADE = re.compile(r"(ir|ir_after|before|after|build|\.venv)(/|$)|.*\.(onnx|safetensors|a|o)$")


@dataclass(frozen=True)
class Edit:
    """A block of a page that goes into a file: all of it, or lines changed at a place.

    Attributes:
        path: of the file, from the root of the repository.
        before: what stands there; None for a new file.
        after: what stands there then.
    """

    path: str
    before: str | None
    after: str

    def apply(self, root: Path) -> None:
        """Do what the page says in a copy of the repository."""
        file = root / self.path
        if self.before is None:
            assert not file.exists(), f"{self.path} exists already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.after, encoding="utf-8")
            return
        text = file.read_text(encoding="utf-8")
        assert text.count(self.before) == 1, (
            f"{self.path} has these lines {text.count(self.before)} times:\n{self.before}"
        )
        file.write_text(text.replace(self.before, self.after), encoding="utf-8")


def edits(page: Path) -> list[Edit]:
    """What the page adds and changes, in order: ``Create `path` …:`` or ``Change `path` …:``, then blocks of code."""
    found: list[Edit] = []
    verb = path = ""
    text = page.read_text(encoding="utf-8")
    for named, where, language, block in re.findall(
        r"^(Create|Change) `([^`]+)`|^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    ):
        if named:
            verb, path = named, where
        elif language == "diff":
            lines = block.splitlines()
            assert verb == "Change" and all(line[:1] in (" ", "+", "-") for line in lines), f"{page.name}: {block}"
            before = "\n".join(line[1:] for line in lines if line[0] != "+")
            found.append(Edit(path, before, "\n".join(line[1:] for line in lines if line[0] != "-")))
        elif language != "console":
            assert verb == "Create", f"{page.name}: nothing says where this goes:\n{block}"
            found.append(Edit(path, None, block))
    return found


def commands(page: Path) -> list[str]:
    """What the page tells to type, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def follow(page: Path, root: Path) -> None:
    """Make every edit of the page in a copy of the repository."""
    for edit in edits(page):
        edit.apply(root)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(text: Path) -> None:
    """Breaks if a page sends a newcomer to a file or folder that was moved."""
    words = re.sub(r"^```.*?^```$", "", text.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = [word.split("::")[0] for word in re.findall(r"`([\w./-]+(?:/[\w.-]*|\.(?:py|md|toml|c|h|txt)))`", words)]
    named += re.findall(r"[\w.-]+(?:/[\w.-]+)+\.py", " ".join(commands(text)))
    links = [(text.parent / link).resolve() for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", words)]
    assert named or links
    lost = [name for name in named if not (THROW_AWAY.search(name) or MADE.match(name) or (ROOT / name).exists())]
    assert lost == []
    assert [link for link in links if not link.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_edits_fit(page: Path, tmp_path: Path) -> None:
    """Breaks if lines that a page changes are not there any more, or a file that it creates is."""
    made = edits(page)
    assert made and commands(page)
    for path in {edit.path for edit in made if edit.before is not None}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    assert not [edit.path for edit in made if edit.before is None and (ROOT / edit.path).exists()]
    follow(page, tmp_path)


def defined(source: str) -> set[str]:
    """The names that a module makes itself; those that it only imports may leave it any time."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_imports_of_pasted_code_exist(page: Path) -> None:
    """Breaks if something that pasted code imports was renamed or moved to another file."""
    python = [edit for edit in edits(page) if edit.path.endswith(".py")]
    modules = {name: (ROOT / path).read_text(encoding="utf-8") for name, path in MODULES.items()}
    modules |= {module_name(Path(edit.path)): edit.after for edit in python if edit.before is None}
    for edit in python:
        for home, names in re.findall(
            r"^from ((?:bnn_deploy|tests)\.[\w.]+) import (\([^)]+\)|.+)$", edit.after, re.MULTILINE
        ):
            source = modules.get(home) or (ROOT / f"{home.replace('.', '/')}.py").read_text(encoding="utf-8")
            wanted = set(re.findall(r"\w+", names))
            packaged = {name for name in wanted if f"{home}.{name}" in modules}
            assert wanted - packaged <= defined(source), f"{edit.path} imports {wanted - packaged} from {home}"


def test_every_page_is_linked() -> None:
    """Breaks if a page is not found from CONTRIBUTING.md."""
    text = TEXTS[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"docs/contributing/{page.name}" not in text] == []


def test_pass_and_target_work_as_pasted(tmp_path: Path) -> None:
    """Breaks if what the pages of a pass and of a target say to paste does not run, or its tests fail."""
    for name in ("bnn_deploy", "models", "passes", "targets", "tests", "docs", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
        else:
            shutil.copy(source, tmp_path / name)
    for name in ("add_a_pass.md", "add_a_target.md"):
        follow(FOLDER / name, tmp_path)
    tests = [
        "tests/passes/relax/test_my_squeeze.py",
        "tests/passes/test_pipeline.py::test_progress_names_every_pass_in_order",
        "tests/targets/test_registry.py",
        "tests/targets/test_table.py::test_selection",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
