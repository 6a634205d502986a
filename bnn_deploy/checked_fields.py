"""Files and objects that others wrote, in JSON or TOML: read up to a size, and every field checked as it is taken.

A rule takes a plain value and returns it as what it is, or raises ``Unfit``. ``Fields`` applies rules to an object and says
which field is what instead of what; the sentence around that, and the class of the error, are its caller's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from bnn_deploy.errors import printable

T = TypeVar("T")
Rule = Callable[[object], T]
# Makes the error from what is wrong, such as "cpus[0].part is 'x', expected a whole number from 0 to 4095".
Refuse = Callable[[str], Exception]

LARGEST_WHOLE = 1 << 62
LARGEST_NUMBER = 1e18
LONGEST_TEXT = 8192
_LONGEST_SHOWN = 60


class Unfit(ValueError):
    """A value that a rule refuses: what it is, what was expected, and where in it, such as "[3]", if not at its top."""

    def __init__(self, found: object, expected: str, place: str = "") -> None:
        super().__init__(f"{place} is {shown(found)}, expected {expected}")
        self.found, self.expected, self.place = found, expected, place


def text(value: object) -> str:
    """A text of any characters."""
    if not isinstance(value, str):
        raise Unfit(value, "a text")
    return value


def printable_text(longest: int = LONGEST_TEXT) -> Rule[str]:
    """A text that a terminal can show, in one line."""

    def rule(value: object) -> str:
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            raise Unfit(value, f"printable text of at most {longest} characters")
        return value

    return rule


def flag(value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Unfit(value, "true or false")
    return value


def whole(smallest: int = 0, largest: int = LARGEST_WHOLE) -> Rule[int]:
    """An int of a range, its ends included."""

    def rule(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
            raise Unfit(value, f"a whole number from {smallest} to {largest}")
        return value

    return rule


def number(
    smallest: float = 0.0, largest: float = LARGEST_NUMBER, *, above: bool = False, below: bool = False
) -> Rule[float]:
    """A float or int of a range, its ends included but for the smallest if ``above``, the largest if ``below``."""

    def rule(value: object) -> float:
        expected = f"a number {'above' if above else 'from'} {smallest:g} {'and below' if below else 'to'} {largest:g}"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise Unfit(value, expected)
        # NaN fails every comparison, and an int may be too large for a float.
        if not smallest <= value <= largest or (above and value == smallest) or (below and value == largest):
            raise Unfit(value, expected)
        return float(value)

    return rule


def choice(*choices: T) -> Rule[T]:
    """One of some texts or whole numbers; the empty text stands for "left out"."""

    def rule(value: object) -> T:
        for entry in choices:
            if type(value) is type(entry) and value == entry:
                return entry
        raise Unfit(value, " or ".join(shown(entry) for entry in choices if entry != ""))

    return rule


def optional(rule: Rule[T]) -> Rule[T | None]:
    """What ``rule`` accepts, or null."""

    def or_null(value: object) -> T | None:
        try:
            return None if value is None else rule(value)
        except Unfit as error:
            raise Unfit(error.found, f"{error.expected}, or null", error.place) from None

    return or_null


def list_of(rule: Rule[T], least: int = 0, most: int = 1 << 24) -> Rule[tuple[T, ...]]:
    """A list whose every entry ``rule`` accepts."""

    def entries(value: object) -> tuple[T, ...]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            length = f"{least}" if least == most else f"at most {most}" if not least else f"{least} to {most}"
            raise Unfit(value, f"a list of {length}")
        return tuple(_inside(rule, entry, f"[{index}]") for index, entry in enumerate(value))

    return entries


def object_of(rule: Rule[T], most: int = 1 << 16) -> Rule[dict[str, T]]:
    """An object of any field names whose every field ``rule`` accepts."""

    def fields(value: object) -> dict[str, T]:
        if not isinstance(value, dict) or len(value) > most:
            raise Unfit(value, f"an object of at most {most} fields")
        return {name: _inside(rule, entry, f".{printable(name)}") for name, entry in value.items()}

    return fields


def _inside(rule: Rule[T], value: object, place: str) -> T:
    try:
        return rule(value)
    except Unfit as error:
        raise Unfit(error.found, error.expected, place + error.place) from None


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(value, "an object")
    return value


class Fields:
    """An object whose every field is checked as it is taken; fields that nobody takes are passed over.

    Args:
        value: what was parsed.
        refuse: makes the error, whatever is wrong.
        path: of the object in what it is part of, such as "cpus[0]".
    """

    def __init__(self, value: object, refuse: Refuse, path: str = "") -> None:
        if not isinstance(value, dict):
            raise refuse(f"{f'{path} is' if path else 'found'} {shown(value)}, expected an object")
        self._value, self._refuse, self._path = value, refuse, path

    def path_of(self, name: str) -> str:
        """A field's place, such as "cpus[0].part"."""
        return f"{self._path}.{name}" if self._path else name

    def refusal(self, name: str, expected: str) -> Exception:
        """The error for a field that is something else than expected."""
        found = shown(self._value[name]) if name in self._value else "missing"
        return self._refuse(f"{self.path_of(name)} is {found}, expected {expected}")

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._value.get(name) is not None

    def take(self, name: str, rule: Rule[T]) -> T:
        """A field that must be there, though it may be null if the rule takes that."""
        if name not in self._value:
            raise self._refuse(f"{self.path_of(name)} is missing")
        try:
            return rule(self._value[name])
        except Unfit as error:
            raise self._refuse(f"{self.path_of(name)}{error}") from error

    def find(self, name: str, rule: Rule[T]) -> T | None:
        """A field that may be missing or null, which both are None."""
        return self.take(name, optional(rule)) if name in self._value else None

    def inner(self, name: str) -> Fields:
        """An object in it."""
        return Fields(self.take(name, _object), self._refuse, self.path_of(name))

    def objects(self, name: str, most: int = 1 << 24) -> list[Fields]:
        """A list of objects in it."""
        entries = self.take(name, list_of(_object, most=most))
        return [Fields(entry, self._refuse, f"{self.path_of(name)}[{index}]") for index, entry in enumerate(entries)]

    def only(self, names: Collection[str]) -> None:
        """Refuse fields of other names."""
        for name in self._value:
            if name not in names:
                raise self._refuse(f"there is no entry {shown(self.path_of(name))}; the entries are {', '.join(names)}")


def read_limited(path: Path, largest: int, refuse: Refuse) -> bytes:
    """The content of a file of at most ``largest`` bytes."""
    try:
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})") from error
    if len(content) > largest:
        raise refuse(f"has more than {largest} bytes")
    return content


def parse_json(content: str | bytes) -> Any:
    """The value that a text of JSON stands for; raises ValueError if it is none, or is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, largest: int, refuse: Refuse) -> Any:
    """The value in a JSON file of at most ``largest`` bytes."""
    content = read_limited(path, largest, refuse)
    try:
        return parse_json(content)
    except ValueError as error:
        raise refuse("is not JSON") from error


def shown(value: object) -> str:
    """A value of unknown type and size for a message: one short line."""
    if isinstance(value, (dict, list, tuple)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    words = repr(value[: _LONGEST_SHOWN + 1] if isinstance(value, (str, bytes)) else value)
    return words if len(words) <= _LONGEST_SHOWN else f"{words[:_LONGEST_SHOWN]}…"
