"""One status line for long work, on stderr and only when that is a terminal."""

from __future__ import annotations

import shutil
import sys
import time
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


class Pace:
    """Messages on how far a long run is, how fast it goes and how long it will take."""

    WIDTH = 20

    def __init__(self, total: int, done: int = 0, text: str = "compared {done} of {total} images") -> None:
        """Start the clock, when ``done`` of ``total`` images, or of whatever ``text`` says, are done."""
        self._total, self._start, self._since = total, done, time.monotonic()
        self._text = text

    def message(self, done: int) -> str:
        """Such as "compared 1280 of 50000 images [#...................] 412.1/s, 1 min 58 s left"."""
        text = self._text.format(done=done, total=self._total)
        seconds = time.monotonic() - self._since
        if done >= self._total or done <= self._start or seconds <= 0:
            return text
        rate = (done - self._start) / seconds
        filled = self.WIDTH * done // self._total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        return f"{text} [{bar}] {rate:.1f}/s, {_duration((self._total - done) / rate)} left"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
