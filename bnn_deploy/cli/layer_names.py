"""Names of layers in tables on a terminal."""

from __future__ import annotations


def short_layers(names: str) -> str:
    """The layer of a kernel; of several, the first and the last and how many they are."""
    first, *rest = printable(names).split(" + ")
    return cut(first, 40) if not rest else f"{cut(first, 30)} … {cut(rest[-1], 30)} ({1 + len(rest)})"


def cut(text: str, width: int) -> str:
    """``text`` in ``width`` characters; the end of a module path tells more than its beginning."""
    return text if len(text) <= width else "…" + text[1 - width :]


def printable(text: str) -> str:
    """Names come from files: what would move the cursor or break the line becomes "?"."""
    return "".join(character if character.isprintable() else "?" for character in text)
