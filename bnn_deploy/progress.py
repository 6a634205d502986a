"""One status line for long work, on stderr and only when that is a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

ReportProgress = Callable[[str], None]

ERASE_LINE = "\r\x1b[K"


def quiet(message: str) -> None:
    """A progress report that goes nowhere."""


@contextmanager
def status_line(stream: TextIO | None = None) -> Iterator[ReportProgress]:
    """Yield a function that replaces the status line by its message; the line is erased at the end.

    Args:
        stream: where to write, stderr if None. Nothing is written when it is not a terminal.
    """
    output = sys.stderr if stream is None else stream
    if not output.isatty():
        yield quiet
        return

    def report(message: str) -> None:
        # A line that wraps could not be erased.
        width = shutil.get_terminal_size().columns - 1
        output.write(ERASE_LINE + " ".join(message.split())[:width])
        output.flush()

    try:
        yield report
    finally:
        output.write(ERASE_LINE)
        output.flush()
