"""What all processes of ``make mutants`` agree on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import hypothesis

ROOT = Path(__file__).parents[2]
# Folders that mistakes are made in.
MUTATED = ("passes", "targets")


def sources_in(folder: str) -> list[Path]:
    """The Python files of a folder of the repository, or the one file that ``folder`` is."""
    path = ROOT / folder
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def sources_digest() -> str:
    """SHA-256 of all that mistakes are made in: lines noted of other sources are not the lines of these."""
    digest = hashlib.sha256()
    for folder in MUTATED:
        for path in sources_in(folder):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def settle_examples(**settings: Any) -> None:
    """Has hypothesis try the same examples in every run, and remember none."""
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None, **settings)
    hypothesis.settings.load_profile("mutants")
