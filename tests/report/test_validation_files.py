"""A validation as JSON, and the choice between all formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bnn_deploy.errors import InputError
from bnn_deploy.report.validation_files import SUFFIXES, check, contents
from bnn_deploy.validation.report import Example, LevelResult, ModelResult, TensorResult, ValidationReport
from tests.report.validation_samples import failing, passing, renamed

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "validation.schema.json").read_text())


def objects(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects with properties in a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield place, schema
        for key, entry in schema.items():
            yield from objects(entry, f"{place}/{key}")


def test_json_is_what_the_schema_says(report: ValidationReport) -> None:
    """Breaks if the published schema describes another format than the one that is written, or NaN is written bare."""
    text = contents(report, Path("a.json"))
    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)
    assert document == report.to_dict()


def test_schema_refuses_what_it_does_not_know() -> None:
    """Breaks if a misspelt, missing or undescribed field passes for a valid report."""
    for place, schema in objects(SCHEMA):
        assert schema["additionalProperties"] is False and schema["required"] == list(schema["properties"]), place
        assert all("description" in entry or "const" in entry for entry in schema["properties"].values()), place
    document = failing().to_dict()
    targets = (
        document,
        document["model"],
        document["levels"][1],
        document["levels"][1]["rows"][3],
        document["levels"][1]["rows"][3]["example"],
    )
    for target in targets:
        target["unknown"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, SCHEMA)
        del target["unknown"]
    jsonschema.validate(document, SCHEMA)
    document["levels"][1]["rows"][3]["max_error"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


@pytest.mark.parametrize(
    ("place", "kind"),
    [("example", Example), ("tensor", TensorResult), ("level", LevelResult), ("model", ModelResult)],
)
def test_schema_has_every_field(place: str, kind: type) -> None:
    """Breaks if a field is added to the report and not described."""
    assert list(SCHEMA["$defs"][place]["properties"]) == [field.name for field in fields(kind)]


@pytest.mark.parametrize("name", ["report", "report.txt", "report.html.gz", ".html"])
def test_unknown_suffix(name: str) -> None:
    """Breaks if a report of no known format is found out only after the work, or without a sentence."""
    with pytest.raises(InputError, match=r"is no name for a report; end it in \.html"):
        check(Path(name))
    with pytest.raises(InputError):
        contents(passing(), Path(name))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffix_chooses_the_format(suffix: str) -> None:
    """Breaks if a file has another format than its name says, or cannot be written as UTF-8."""
    report = renamed(passing(), ("\ud800",))
    starts = {".html": "<!DOCTYPE html>", ".json": "{", ".md": "### ✅", ".xml": "<?xml "}
    for path in (Path(f"a{suffix}"), Path(f"b.c{suffix.upper()}")):
        check(path)
        text = contents(report, path).decode()
        assert text.startswith(starts[suffix]) and text.endswith("\n")
