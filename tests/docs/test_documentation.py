"""docs/cli.md: every command in it must work as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bnn_deploy.cli import COMMANDS, command_line
from tests.docs.documents import documented_commands, newcomers_environment, run_documented_here

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text()


def test_commands_in_the_documentation(tmp_path: Path) -> None:
    """Breaks if a newcomer who copies the commands of docs/cli.md, in order, into a shell gets an error."""
    environment = newcomers_environment(tmp_path / "programs")
    folder = tmp_path / "work"
    folder.mkdir()
    commands = [documented.command for documented in documented_commands(DOCUMENT)]
    assert {line.split()[1] for line in commands if line.startswith("bnn-deploy")} == set(COMMANDS)
    for command in commands:
        done = run_documented_here(command, folder, environment)
        if command.endswith("--format json"):
            json.loads(done.stdout)
    made = {"tiny.onnx", "plain.onnx", "packed.onnx", "tiny_host", "tiny_arm64", "ir", "x.npy", "y.npy", "digits.npz"}
    made |= {"golden.npz", "my.toml", "trained"}
    made |= {"tiny.html", "tiny.png", "tiny.trace.json", "tiny.csv", "before.json", "after.json", "difference.html"}
    assert {entry.name for entry in folder.iterdir()} == made


@pytest.mark.parametrize("command", COMMANDS)
def test_options_in_the_documentation_exist(command: str) -> None:
    """Breaks if the section of a command mentions an option that it does not have, or the section is missing."""
    section = re.search(rf"^## {command}: (.*?)(?=^## |\Z)", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    assert section is not None
    of_this = CliRunner().invoke(command_line, [command, "--help"]).stdout
    of_all = "".join(CliRunner().invoke(command_line, [name, "--help"]).stdout for name in COMMANDS)
    table = [
        option for row in section[1].splitlines() if row.startswith("| `--") for option in re.findall(r"--[a-z-]+", row)
    ]
    assert all(f"{option} " in of_this for option in table)
    assert all(f"{option} " in of_all for option in re.findall(r"`(--[a-z-]+)", section[1]))


def test_every_model_is_documented() -> None:
    """Breaks if a model is added and the documentation does not name it."""
    from bnn_deploy.models.names import MODEL_NAMES

    assert " ".join(MODEL_NAMES) in DOCUMENT
