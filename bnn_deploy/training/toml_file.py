"""TOML: a file of a user's into plain values, and plain values into text."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_deploy.checked_fields import read_limited
from bnn_deploy.errors import InputError, message_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST_FILE = 2**18


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: it cannot be read, has more than ``LARGEST_FILE`` bytes, or is no TOML.
    """
    if not path.is_file():
        raise InputError(f"{path}: is not a file; give a recipe in TOML.")
    content = read_limited(
        path, LARGEST_FILE, lambda problem: InputError(f"{path}: {problem}, so it is no recipe; give another file.")
    )
    try:
        found: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no TOML ({message_lines(error)[0][:200]}); correct it.") from error
    return found


def toml_text(head: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Texts of one line, numbers, booleans and lists of numbers as TOML; ``tables`` become arrays of tables."""
    blocks = [_lines(head)]
    blocks += [f"[[{name}]]\n{_lines(entries)}" for name, several in tables.items() for entries in several]
    return "\n".join(blocks)


def _lines(entries: Mapping[str, Any]) -> str:
    # JSON's texts, finite numbers, booleans and lists are TOML's as well, as long as texts have no control characters.
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n" for name, value in entries.items()
    )
