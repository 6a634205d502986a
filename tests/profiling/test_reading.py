"""Profiles are read back from files that may come from anywhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from bnn_deploy.errors import BnnDeployError, InputError
from bnn_deploy.profiling.model import LostBoard, ProfileReport
from bnn_deploy.profiling.reading import profile_from_json, read_profile

Invoke = Callable[..., Result]
MakeReport = Callable[..., ProfileReport]

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "profile.schema.json").read_text())


@pytest.fixture(scope="module")
def valid(make_report: MakeReport) -> dict[str, Any]:
    """A profile of two boards, and a lost one, as parsed JSON."""
    report = make_report([[1e-6, 3e-6, 2e-6]] * 8, boards=("a", "b"), peak_memory_bytes=4096)
    report = replace(report, lost=(LostBoard("c", "went away."),))
    result: dict[str, Any] = json.loads(json.dumps(report.to_dict()))
    return result


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.deepcopy(value)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return result


def test_round_trip(valid: dict[str, Any], make_report: MakeReport) -> None:
    """Breaks if a number changes on its way through a file."""
    assert json.loads(json.dumps(profile_from_json(valid, "x").to_dict())) == valid
    few = make_report([[1e-6, 3e-6, 2e-6]])
    assert profile_from_json(json.loads(json.dumps(few.to_dict())), "x") == few


def test_schema_describes_what_is_printed(tiny_bundle: Path, invoke: Invoke, valid: dict[str, Any]) -> None:
    """Breaks if docs/schemas/profile.schema.json describes another format than the one that is printed."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    printed = json.loads(invoke("profile", tiny_bundle, "--repeat", 6, "--format", "json").stdout)
    for document in (valid, printed):
        jsonschema.validate(document, SCHEMA)
        assert set(document) == set(SCHEMA["properties"])
        definitions = SCHEMA["$defs"]
        assert set(document["boards"][0]) == set(definitions["board"]["properties"])
        assert set(document["boards"][0]["kernels"][0]) == set(definitions["kernel"]["properties"])


# What no place of a profile may hold.
NONSENSE = st.sampled_from(["\x00", -5, 1e300, [[]], {"a": 1}, [1, 2, 3], True, 10**30, [None]])


@given(st.data())
def test_nonsense_is_refused_as_the_schema_says(valid: dict[str, Any], data: st.DataObject) -> None:
    """Breaks if a damaged profile ends in a traceback, or what the schema refuses is believed."""
    path = data.draw(st.sampled_from(list(places(valid))))
    document = changed(valid, path, data.draw(NONSENSE))
    acceptable = jsonschema.Draft202012Validator(SCHEMA).is_valid(document)
    try:
        profile_from_json(document, "file.json")
    except BnnDeployError as error:
        assert "file.json" in str(error) and len(str(error)) < 400
    else:
        assert acceptable


@given(st.data())
def test_missing_parts_are_refused(valid: dict[str, Any], data: st.DataObject) -> None:
    """Breaks if half a profile is believed, or ends in a traceback."""
    # Profiles of before do not have the GPU.
    named = [path for path in places(valid) if path and isinstance(path[-1], str) and path[-1] != "gpu"]
    path = data.draw(st.sampled_from(named))
    document = copy.deepcopy(valid)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(InputError, match=r"file\.json"):
        profile_from_json(document, "file.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"[]", "is no profile"),
        (b'{"format": "bnn_deploy.bundle"}', "is no profile"),
        (b'{"format": "bnn_deploy.profile", "format_version": 2}', "has format version 2"),
    ],
)
def test_other_files(content: bytes, said: str, tmp_path: Path) -> None:
    """Breaks if another file given for a profile is not named as what it is."""
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_profile(path)


def test_not_a_number(valid: dict[str, Any], tmp_path: Path) -> None:
    """Breaks if NaN, which Python's JSON reads and no comparison understands, gets through."""
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        path = tmp_path / "nan.json"
        path.write_text(json.dumps(valid).replace('"min": ', f'"min": {number}, "ignored": ', 1))
        with pytest.raises(InputError, match=r"min is .*, expected a number"):
            read_profile(path)


def test_too_large_and_missing(tmp_path: Path) -> None:
    """Breaks if a file of any size is read into memory, or a missing one ends in a traceback."""
    path = tmp_path / "large.json"
    with open(path, "wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError, match="has more than 67108864 bytes"):
        read_profile(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_profile(tmp_path / "missing.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_profile(tmp_path)
