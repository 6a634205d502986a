"""What the entries of a recipe may be: each rule returns the value it accepts, or says what it expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], Any]

_STEP_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
# Files of a run folder that are not a step's.
_RESERVED_NAMES = ("checkpoint", "weights")
_LONGEST_TEXT = 1000


class Unfit(ValueError):
    """A value that a rule refuses; the message is what was expected."""


def whole(smallest: int, largest: int) -> Rule:
    """An int of a range, its ends included."""

    def rule(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
            raise Unfit(f"a whole number from {smallest} to {largest}")
        return value

    return rule


def number(smallest: float, largest: float, *, above: bool = False, below: bool = False) -> Rule:
    """A float or int of a range, its ends included but for the smallest if ``above``, the largest if ``below``."""

    def rule(value: Any) -> float:
        expected = f"a number {'above' if above else 'from'} {smallest:g} {'and below' if below else 'to'} {largest:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Unfit(expected)
        # NaN fails every comparison, and an int may be too large for a float.
        if not smallest <= value <= largest or (above and value == smallest) or (below and value == largest):
            raise Unfit(expected)
        return float(value)

    return rule


def choice(*choices: str) -> Rule:
    """One of some texts; the empty one stands for "left out"."""

    def rule(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Unfit(" or ".join(repr(entry) for entry in choices if entry))
        return value

    return rule


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def text(value: Any) -> str:
    """One line."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_TEXT:
        raise Unfit(f"one line of at most {_LONGEST_TEXT} characters")
    return value


def step_name(value: Any) -> str:
    """A name that can be a file's, and is none of the run folder's own."""
    if not isinstance(value, str) or not _STEP_NAME.fullmatch(value) or value in _RESERVED_NAMES:
        raise Unfit(f"a name of a-z, 0-9 and _, other than {' and '.join(_RESERVED_NAMES)}")
    return value


def optional_name(value: Any) -> str:
    """A step's name, or nothing."""
    return "" if value == "" else step_name(value)


def jitter(value: Any) -> tuple[float, ...]:
    """Brightness, contrast, saturation and hue, as torchvision's ColorJitter takes them."""
    expected = "four numbers: brightness, contrast and saturation from 0 to 1, hue from 0 to 0.5"
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise Unfit(expected)
    try:
        return tuple(number(0, largest)(entry) for entry, largest in zip(value, (1, 1, 1, 0.5), strict=True))
    except Unfit:
        raise Unfit(expected) from None


def shown(value: Any) -> str:
    """A value of unknown kind and size, for a message."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
