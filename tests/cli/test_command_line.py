"""What every command shares: cheap help, one sentence for every error, exit codes, and quiet progress."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from bnn_deploy import __version__
from bnn_deploy.cli import COMMANDS, command_line
from bnn_deploy.errors import BnnDeployError, InputError
from bnn_deploy.progress import ERASE_LINE, status_line

PROGRAM = [sys.executable, "-m", "bnn_deploy.cli"]


def invoke_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch, *before: str) -> Result:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(type(command_line), "get_command", lambda self, context, name: failing)
    return CliRunner().invoke(command_line, [*before, "failing"])


def test_help_lists_every_command() -> None:
    """Breaks if a command of the issue is missing, or has no line of help."""
    result = CliRunner().invoke(command_line, ["--help"])
    assert result.exit_code == 0
    assert COMMANDS == (
        "train",
        "export",
        "import",
        "compile",
        "run",
        "golden",
        "validate",
        "profile",
        "compare",
        "inspect",
        "targets",
        "doctor",
    )
    lines = [line.split(maxsplit=1) for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert [name for name, _ in lines] == list(COMMANDS)
    assert all(description.endswith(".") for _, description in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_format(command: str) -> None:
    """Breaks if a command does not load, has no documentation, or cannot print JSON."""
    result = CliRunner().invoke(command_line, [command, "--help"])
    assert result.exit_code == 0
    assert "--format [text|json]" in result.stdout


def test_version() -> None:
    """Breaks if the version printed is not the package's."""
    result = CliRunner().invoke(command_line, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"bnn-deploy {__version__}\n")


def test_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if an error of the user's shows a traceback, goes to stdout, or exits with anything but 2."""
    result = invoke_raising(InputError("X is 3, expected 4; change it."), monkeypatch)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: X is 3, expected 4; change it.\n")


def test_user_error_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if --debug hides where an error came from."""
    result = invoke_raising(BnnDeployError("sentence."), monkeypatch, "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and result.stderr.endswith("error: sentence.\n")


def test_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if our own mistake looks like the user's, shows a traceback, or does not say how to report it."""
    result = invoke_raising(KeyError("name"), monkeypatch)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "defect of bnn-deploy (KeyError: 'name')" in result.stderr and "--debug" in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "Memory ran out"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied: /x; check the path"),
        (OSError(28, "No space left on device"), "No space left on device; free some disk space"),
    ],
)
def test_machine_errors(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a full disk or missing permission is called a defect of bnn-deploy."""
    result = invoke_raising(error, monkeypatch)
    assert result.exit_code == 2 and message in result.stderr and "defect" not in result.stderr


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if Ctrl-C prints a traceback or a shell cannot tell it from a failure."""
    result = invoke_raising(KeyboardInterrupt(), monkeypatch)
    assert result.exit_code == 130 and result.stderr.strip() == ""


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["export"], ["run", "--threads", "0"], ["--nothing"], ["validate", "x", "--min-agreement", "2"]],
)
def test_usage_errors(arguments: list[str]) -> None:
    """Breaks if wrong usage exits with 0 or 1, or does not point to --help."""
    result = CliRunner().invoke(command_line, arguments)
    assert result.exit_code == 2 and result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ") and "--help" in second


def test_closed_pipe() -> None:
    """Breaks if `bnn-deploy … | head` prints a traceback, or exits with 1 as if a model had failed."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*PROGRAM, "targets"], stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_installed_entry_point_and_module_agree() -> None:
    """Breaks if `python -m bnn_deploy.cli` is not the command line."""
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"bnn-deploy {__version__}\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_status_line_on_a_terminal() -> None:
    """Breaks if progress is not shown, wraps beyond one line, or stays on the screen afterwards."""
    terminal = Terminal()
    with status_line(terminal) as report:
        report("first")
        report("long " * 100)
    text = terminal.getvalue()
    assert text.startswith(f"{ERASE_LINE}first{ERASE_LINE}long long") and text.endswith(ERASE_LINE)
    assert max(len(part) for part in text.split(ERASE_LINE)) < 200


def test_status_line_elsewhere() -> None:
    """Breaks if progress fills log files and pipes."""
    stream = io.StringIO()
    with status_line(stream) as report:
        report("first")
    assert stream.getvalue() == ""


def test_targets() -> None:
    """Breaks if a target of the issue is missing, or the host is not one of those listed."""
    result = CliRunner().invoke(command_line, ["targets", "--format", "json"])
    assert result.exit_code == 0, result.stderr
    listed = json.loads(result.stdout)
    names = [target["name"] for target in listed["targets"]]
    wanted = {"x86-64-v3", "x86-64-v4", "arm64", "rpi3", "rpi4", "rpi5", "jetson-nano-cpu", "orin-cpu"}
    assert wanted <= set(names) and len(names) == len(set(names))
    assert [target["name"] for target in listed["targets"] if target["host"]] == (
        [listed["host"]] if listed["host"] else []
    )
    text = CliRunner().invoke(command_line, ["targets"]).stdout
    assert all(any(line.startswith(name + " ") for line in text.splitlines()) for name in names)


def test_model_names_are_those_of_the_registry() -> None:
    """Breaks if a model is added that `export` does not offer."""
    from bnn_deploy.models.names import MODEL_NAMES
    from bnn_deploy.models.registry import MODELS

    assert tuple(MODELS) == MODEL_NAMES


def test_entry_point_is_declared() -> None:
    """Breaks if an installed package has no `bnn-deploy` command, or one that points elsewhere."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'bnn-deploy = "bnn_deploy.cli:main"' in text
