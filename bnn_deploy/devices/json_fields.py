"""Reads JSON of another machine field by field: whatever is missing, of another type or out of its range is a DeviceError."""

from __future__ import annotations

import json
import math
from typing import Any

from bnn_deploy.errors import DeviceError

LONGEST_TEXT = 8192
LARGEST_NUMBER = 1 << 62


class JsonFields:
    """An object whose every field is checked as it is taken; fields that nobody takes are passed over.

    Args:
        value: parsed JSON.
        where: how errors name the object.
        advice: what errors tell to do.
    """

    def __init__(self, value: Any, where: str, advice: str) -> None:
        self.where, self.advice = where, advice
        if not isinstance(value, dict):
            raise DeviceError(f"{where}: found {shown(value)}, expected an object; {advice}.")
        self._value = value

    @classmethod
    def parse(cls, text: str, where: str, advice: str) -> JsonFields:
        """The object of a text.

        Raises:
            DeviceError: it is not JSON, or something else than an object.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DeviceError(f"{where}: found {shown(text)}, expected JSON; {advice}.") from error
        return cls(value, where, advice)

    def fail(self, name: str, expected: str) -> DeviceError:
        """The error for a field that is something else than expected."""
        found = shown(self._value[name]) if name in self._value else "nothing"
        return DeviceError(f"{self.where}: {name} is {found}, expected {expected}; {self.advice}.")

    def take(self, name: str) -> Any:
        """A field as it is; None if it is missing."""
        return self._value.get(name)

    def text(self, name: str) -> str | None:
        """Printable text, or None."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
            raise self.fail(name, f"printable text of at most {LONGEST_TEXT} characters, or null")
        return value

    def whole(self, name: str, smallest: int = 0, largest: int = LARGEST_NUMBER) -> int | None:
        """A whole number in a range, or None."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
            raise self.fail(name, f"a whole number from {smallest} to {largest}, or null")
        return value

    def number(self, name: str, smallest: float = 0.0, largest: float = 1e18) -> float | None:
        """A number in a range, or None."""
        value = self._value.get(name)
        if value is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not smallest <= value <= largest:
            raise self.fail(name, f"a number from {smallest:g} to {largest:g}, or null")
        return float(value)

    def truth(self, name: str) -> bool:
        """True or False; it may not be missing."""
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def objects(self, name: str, largest: int) -> list[JsonFields]:
        """A list of at most ``largest`` objects; it may not be missing."""
        value = self._value.get(name)
        if not isinstance(value, list) or len(value) > largest:
            raise self.fail(name, f"a list of at most {largest} objects")
        return [JsonFields(entry, f"{self.where}: {name}[{i}]", self.advice) for i, entry in enumerate(value)]

    def inner(self, name: str) -> JsonFields:
        """An object; it may not be missing."""
        return JsonFields(self._value.get(name), f"{self.where}: {name}", self.advice)

    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._value)


def shown(value: Any) -> str:
    """A value of unknown type and size for a message: one short line."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value) if isinstance(value, str) else json.dumps(value)[:41]
    return text if len(text) <= 40 else f"{text[:40]}…"
