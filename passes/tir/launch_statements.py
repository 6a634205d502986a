"""What a GPU kernel's body is made of: declarations and launches, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx


def flat(statement: tirx.Stmt) -> Iterator[tirx.Stmt]:
    """The statements of a sequence within sequences, in order."""
    if isinstance(statement, tirx.SeqStmt):
        for part in statement.seq:
            yield from flat(part)
    else:
        yield statement


def is_launch(statement: tirx.Stmt) -> bool:
    """Whether the statement binds its body to blocks or threads."""
    return isinstance(statement, tirx.AttrStmt) and statement.attr_key == "thread_extent"
