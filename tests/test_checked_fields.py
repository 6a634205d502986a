"""What others wrote is believed only where a rule accepts it, and the message says which field is what."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bnn_deploy.checked_fields import (
    Fields,
    Rule,
    Unfit,
    choice,
    flag,
    list_of,
    number,
    object_of,
    optional,
    parse_json,
    printable_text,
    read_json,
    shown,
    text,
    whole,
)
from bnn_deploy.errors import InputError


def refuse(problem: str) -> InputError:
    return InputError(f"a.json: {problem}; write it again.")


@pytest.mark.parametrize(
    ("rule", "value", "accepted"),
    [
        (text, "\x1b", "\x1b"),
        (printable_text(3), "äöü", "äöü"),
        (flag, False, False),
        (whole(-1, 2), -1, -1),
        (whole(-1, 2), 2, 2),
        (number(0, 2), 2, 2.0),
        (number(0, 1, above=True), 1e-300, 1e-300),
        (choice("", "a"), "", ""),
        (choice(32, 64), 64, 64),
        (optional(flag), None, None),
        (list_of(whole(), 1, 2), [1, 2], (1, 2)),
        (object_of(list_of(flag)), {"a": [True], "b": []}, {"a": (True,), "b": ()}),
    ],
)
def test_accepted(rule: Rule[object], value: object, accepted: object) -> None:
    """Breaks if a right value is refused, or becomes another one or another type."""
    found = rule(value)
    assert found == accepted and type(found) is type(accepted)


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (text, 3, " is 3, expected a text"),
        (printable_text(), "\x1b[2J", r" is '\x1b[2J', expected printable text of at most 8192 characters"),
        (printable_text(3), "abcd", " is 'abcd', expected printable text of at most 3 characters"),
        (flag, 1, " is 1, expected true or false"),
        (whole(1), 0, f" is 0, expected a whole number from 1 to {1 << 62}"),
        (whole(0, 2), 3, " is 3, expected a whole number from 0 to 2"),
        (whole(), True, f" is true, expected a whole number from 0 to {1 << 62}"),
        (whole(0, 2), 1.0, " is 1.0, expected a whole number from 0 to 2"),
        (number(0, 1), math.nan, " is nan, expected a number from 0 to 1"),
        (number(0, 1), 10**400, " is a number beyond 64 bits, expected a number from 0 to 1"),
        (number(0, 1), False, " is false, expected a number from 0 to 1"),
        (number(0, 1, above=True), 0, " is 0, expected a number above 0 to 1"),
        (number(0, 1, below=True), 1, " is 1, expected a number from 0 and below 1"),
        (choice("", "a", "b"), "c", " is 'c', expected 'a' or 'b'"),
        (choice(1), True, " is true, expected 1"),
        (choice("a"), [], " is a list of 0, expected 'a'"),
        (optional(flag), 0, " is 0, expected true or false, or null"),
        (list_of(flag), {}, " is an object of 0, expected a list of at most 16777216"),
        (list_of(flag, 2, 2), [True], " is a list of 1, expected a list of 2"),
        (list_of(flag, 1), [], " is a list of 0, expected a list of 1 to 16777216"),
        (list_of(list_of(flag)), [[True], [True, 3]], "[1][1] is 3, expected true or false"),
        (object_of(flag), {"a": 3}, ".a is 3, expected true or false"),
        (object_of(flag, 1), {"a": True, "b": True}, " is an object of 2, expected an object of at most 1 fields"),
        (object_of(optional(list_of(flag))), {"a\n": [3]}, r".'a\n'[0] is 3, expected true or false, or null"),
    ],
)
def test_refused(rule: Rule[object], value: object, message: str) -> None:
    """Breaks if a wrong value is believed, or the message does not say where and what it is."""
    with pytest.raises(Unfit) as raised:
        rule(value)
    assert str(raised.value) == message


def test_fields() -> None:
    """Breaks if a field is taken for another, or null for something, or the message does not name the field's path."""
    fields = Fields({"a": [{"b": {"c": 3}}], "n": None}, refuse)
    assert fields.has("a") and not fields.has("n") and not fields.has("x")
    assert fields.take("n", optional(flag)) is fields.find("n", flag) is fields.find("x", flag) is None
    inner = fields.objects("a")[0].inner("b")
    assert inner.take("c", whole()) == inner.find("c", whole()) == 3
    for attempt, problem in (
        (lambda: inner.take("c", flag), "a[0].b.c is 3, expected true or false"),
        (lambda: inner.find("c", flag), "a[0].b.c is 3, expected true or false, or null"),
        (lambda: inner.take("d", flag), "a[0].b.d is missing"),
        (lambda: inner.inner("c"), "a[0].b.c is 3, expected an object"),
        (lambda: inner.only(("d", "e")), "there is no entry 'a[0].b.c'; the entries are d, e"),
        (lambda: fields.objects("n"), "n is null, expected a list of at most 16777216"),
        (lambda: fields.objects("a", most=0), "a is a list of 1, expected a list of 0"),
        (lambda: Fields([], refuse), "found a list of 0, expected an object"),
    ):
        with pytest.raises(InputError) as raised:
            attempt()
        assert str(raised.value) == f"a.json: {problem}; write it again."
    assert str(inner.refusal("c", "4")) == "a.json: a[0].b.c is 3, expected 4; write it again."
    inner.only(("c", "d"))


def test_files(tmp_path: Path) -> None:
    """Breaks if a file of any size is read into memory, or what is no JSON ends in a traceback."""
    path = tmp_path / "a.json"
    for content, found in ((b"[1]", None), (b"[12]", "has more than 3 bytes"), (b"[1", "is not JSON")):
        path.write_bytes(content)
        if found is None:
            assert read_json(path, 3, refuse) == [1]
        else:
            with pytest.raises(InputError, match=f"a.json: {found}; write"):
                read_json(path, 3, refuse)
    for missing in (tmp_path, tmp_path / "b"):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(missing, 3, refuse)
    for content in (b"[" * 200_000, b"\xff", b"", b"1" * 5000):
        with pytest.raises(ValueError, match=r"."):
            parse_json(content)


def test_shown() -> None:
    """Breaks if a message holds megabytes, or characters that a terminal acts on."""
    values = ("x" * 10**6, "\x1b" * 100, b"\0" * 10**6, [[1] * 10**6], {"a": "b"}, 10**5000, math.inf)
    assert all(len(shown(value)) <= 61 and shown(value).isprintable() for value in values)
