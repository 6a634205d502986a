"""docs/parity.md: its commands work as they stand, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import documented_commands, newcomers_environment, run_documented_here

ROOT = Path(__file__).parents[2]


@pytest.mark.qemu
def test_commands_in_the_guide(tmp_path: Path) -> None:
    """Breaks if a newcomer who copies the commands of docs/parity.md into a shell gets an error."""
    environment = newcomers_environment(tmp_path / "programs")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    for documented in documented_commands((ROOT / "docs" / "parity.md").read_text()):
        run_documented_here(documented.command, folder, environment)
    assert {"parity.html", "golden.npz", "parity"} <= {path.name for path in folder.iterdir()}
