"""SIGINT and SIGTERM as a wish that a run can look at, rather than as an exception at any line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the number of the first SIGINT or SIGTERM that came, or 0.

    A second signal does what it did before, so that a run that hangs can be ended. Python allows this in the main thread
    only; elsewhere signals stay as they are.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        restore()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell's job in the background ignores Ctrl-C, which is meant for others.
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            # None: it was installed by something other than Python, which cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: came[0] if came else 0
    finally:
        restore()
