"""The commands of a document and what it says that they print, and an environment in which a newcomer would type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from bnn_deploy.cli import command_line

# The commands that import torch or TVM, and what makes a line one for a shell.
IMPORTING = ("export", "compile", "validate")
SHELL_WORDS = {">", "|", "||", "&&", "&", ";"}


@dataclass(frozen=True)
class DocumentedCommand:
    """A line ``$ …`` of a document's console blocks, and the lines below it."""

    command: str
    output: tuple[str, ...]


def documented_commands(document: str) -> list[DocumentedCommand]:
    """All commands of a Markdown text, in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", document, flags=re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.splitlines()
            found.append(DocumentedCommand(command, tuple(output)))
    return found


def newcomers_environment(folder: Path) -> dict[str, str]:
    """This environment, with ``bnn-deploy`` and ``python`` in PATH; their programs are made in ``folder``."""
    folder.mkdir()
    (folder / "bnn-deploy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnn_deploy.cli "$@"\n')
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}


def run_documented(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, as if typed in ``folder``; raises AssertionError with its output if it fails."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        executable="/bin/sh",
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def run_documented_here(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``run_documented``, but in this process where it would import torch or TVM: these take four seconds to load.

    docs/cuda.md's test starts all of these commands as processes of their own.
    """
    words = shlex.split(command)
    if words[:1] != ["bnn-deploy"] or words[1] not in IMPORTING or set(words) & SHELL_WORDS:
        return run_documented(command, folder, environment)
    before, folder_before = dict(os.environ), Path.cwd()
    try:
        os.chdir(folder)
        os.environ.update(environment)
        result = CliRunner().invoke(command_line, words[1:])
    finally:
        os.chdir(folder_before)
        os.environ.clear()
        os.environ.update(before)
    assert result.exit_code == 0, f"{command}\n{result.stdout}{result.stderr}"
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)
