"""docs/data.md: its commands work as they stand, after those of docs/cli.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bnn_deploy.metadata.preprocessing import Preprocessing, imagenet
from tests.docs.documents import documented_commands, newcomers_environment, run_documented_here

DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_commands_in_the_guide(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks if a newcomer who copies the commands of docs/data.md into a shell gets an error, or no state is kept."""
    environment = newcomers_environment(tmp_path / "programs")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "tiny.onnx").symlink_to(tiny_onnx)
    (folder / "tiny_host").symlink_to(tiny_bundle)
    digits, make, pictures = documented_commands(DOCUMENT)
    assert "top-5 accuracy" in run_documented_here(digits.command, folder, environment).stdout
    run_documented_here(make.command, folder, environment)
    run_documented_here(pictures.command, folder, environment)
    assert json.loads((folder / "pictures.state").read_text())["position"] == 1797


def test_example_in_the_guide() -> None:
    """Breaks if the entry that the guide shows is not the one that export writes."""
    entry = re.search(r'^ {4}(\{"version".*?\})$', DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert entry is not None
    assert Preprocessing.from_json(entry[1]) == imagenet(224)
