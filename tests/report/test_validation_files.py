"""A validation as JSON, JUnit XML and Markdown, and the choice between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.dom import minidom
from xml.etree import ElementTree

import jsonschema
import pytest

from bnn_deploy.errors import InputError
from bnn_deploy.report.junit import SUITES, junit
from bnn_deploy.report.markdown import MOST_ROWS, markdown
from bnn_deploy.report.validation_files import SUFFIXES, check, contents
from bnn_deploy.report.verdict import agreement, verdict
from bnn_deploy.validation.report import Example, LevelResult, ModelResult, TensorResult, ValidationReport
from tests.report.nasty_names import NASTY
from tests.report.validation_samples import failing, golden, model, model_only, passing, renamed

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "validation.schema.json").read_text())
REPORTS = {
    "passing": passing(),
    "failing": failing(),
    "golden": golden(),
    "model only": model_only(),
    "nasty": renamed(failing(16), (*NASTY, "\ud800 lone surrogate", "\x00\x1b[31m\x7f\ufffe")),
}
# GitHub's bound is 65,536 characters; what else the comment's maker puts around it has room.
MOST_CHARACTERS = 60_000


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> ValidationReport:
    """One of ``REPORTS``."""
    return REPORTS[request.param]


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


def check_junit(text: str) -> list[ElementTree.Element]:
    """The suites, after the rules of https://github.com/jenkinsci/xunit-plugin (junit-10.xsd), written down by hand."""
    allowed = {
        "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
        "testsuite": (
            {
                "name",
                "tests",
                "failures",
                "errors",
                "time",
                "disabled",
                "skipped",
                "timestamp",
                "hostname",
                "id",
                "package",
            },
            {"properties", "testcase", "system-out", "system-err"},
        ),
        "properties": (set(), {"property"}),
        "property": ({"name", "value"}, set()),
        "testcase": (
            {"name", "assertions", "time", "classname", "status"},
            {"skipped", "error", "failure", "system-out", "system-err"},
        ),
        "failure": ({"type", "message"}, set()),
        "skipped": ({"type", "message"}, set()),
    }
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        attributes, children = allowed[element.tag]
        assert set(element.attrib) <= attributes and {child.tag for child in element} <= children, element.tag
        if element.tag == "testsuite":
            assert {"name", "tests"} <= set(element.attrib)
            assert [child.tag for child in element] == sorted((child.tag for child in element), key="properties".__ne__)
            cases = element.findall("testcase")
            for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
                assert int(element.attrib[count]) == sum(len(case.findall(tag)) for case in cases)
            assert int(element.attrib["tests"]) == len(cases) > 0
        if element.tag == "testcase":
            assert element.get("name") and element.get("classname") and len(element) <= 1
        if element.tag == "property":
            assert set(element.attrib) == {"name", "value"}
    for count in ("tests", "failures", "errors"):
        assert int(root.attrib[count]) == sum(int(suite.attrib[count]) for suite in root)
    # A second reader understands the same.
    second = minidom.parseString(text.encode())
    names = [case.getAttribute("name") for case in second.getElementsByTagName("testcase")]
    assert names == [case.get("name") for case in root.iter("testcase")]
    return list(root)


def test_junit_has_all_layers_and_levels(report: ValidationReport) -> None:
    """Breaks if a CI server refuses the file, or counts another number of layers or failures than there are."""
    suites = check_junit(junit(report))
    assert [suite.get("name") for suite in suites] == list(SUITES.values())
    levels = {level.level: level for level in report.levels}
    for number, suite in zip(SUITES, suites, strict=True):
        cases = suite.findall("testcase")
        assert len({case.get("name") for case in cases}) == len(cases)
        failed = [case.find("failure") is not None for case in cases]
        skipped = [case.find("skipped") is not None for case in cases]
        if number in levels:
            level = levels[number]
            assert failed == [not row.passed for row in level.rows] + [not level.passed]
            assert not any(skipped)
        elif number == 3 and report.model is not None:
            assert failed == [not report.model.passed] and skipped == [False]
        else:
            assert failed == [False] and skipped == [True]
    assert bool(report.passed) == all(int(suite.attrib["failures"]) == 0 for suite in suites)


def test_junit_failure_says_where() -> None:
    """Breaks if the one who reads a failed test case must look elsewhere for the node, the place and the values."""
    (failure, *_) = ElementTree.fromstring(junit(failing()).encode()).iter("failure")
    assert failure.get("message") == "137 of 50176 wrong" and failure.text is not None
    lines = failure.text.split("\n")
    for line in (
        "node: network.0.3.token_mixing/Sign",
        "position in the ONNX value: [12, 4, 5]",
        "image: 3",
        "expected (onnxruntime): 1",
        "found (bundle): -1",
    ):
        assert line in lines


def test_junit_names_stay_the_same() -> None:
    """Breaks if a CI server takes a test case of the next run, which fails and runs other kernels, for a new one."""

    def names(report: ValidationReport) -> list[tuple[str | None, str | None]]:
        root = ElementTree.fromstring(junit(report).encode())
        return [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]

    before, after = passing(), failing()
    moved = [
        replace(level, images=7, rows=tuple(replace(row, step=row.step + 9, compared=1) for row in level.rows))
        for level in after.levels
    ]
    assert names(before) == names(replace(after, levels=tuple(moved), device="qemu", data="others"))


def test_junit_keeps_equal_names_apart() -> None:
    """Breaks if two values of one name become one test case, so that a server shows only one of them."""
    rows = (passing().levels[0].rows[0],) * 3
    level = replace(passing().levels[0], rows=rows)
    (suite, *_) = check_junit(junit(replace(passing(), levels=(level,))))
    names = [case.get("name") for case in suite.findall("testcase")]
    assert names[1] == f"{names[0]} (2)" and names[2] == f"{names[0]} (3)"


def test_markdown_of_a_failure() -> None:
    """Breaks if the comment does not say at once what is wrong, where, and what to do."""
    text = markdown(failing())
    first, second = text.split("\n\n")[:2]
    assert first == "### ❌ bnn-deploy validate: failed"
    assert "the first wrong layer is network.0.3.token_mixing/Sign" in second
    assert "image 3 at channel 12, row 4, column 5: onnxruntime has +1, the bundle -1" in second
    assert "\n**What to do:** " in text
    levels = [line.split(" | ")[0] for line in text.split("\n") if re.match(r"\| [✅❌] ", line)]
    assert levels == ["| ✅ 1: kernel integers", "| ❌ 2: teacher-forced layers", "| ❌ 3: whole model"]
    assert "8 of 351k activations lie so close to a threshold" in text
    assert markdown(passing()).startswith("### ✅ bnn-deploy validate: passed\n")
    assert "<details>" not in markdown(passing())


def test_markdown_lets_no_name_out(report: ValidationReport) -> None:
    """Breaks if a layer's name mentions somebody, makes a link, an element or another column in the comment."""
    text = markdown(report)
    text.encode()
    # Everything that is ours; what remains are names and sentences.
    ours = re.sub(
        r"</?(code|details|summary)>|&#\d+;(<!-- -->)?|^> ⚠ |^### |\*\*What to do:\*\*|\|[-:|]+\|", "", text, flags=re.M
    )
    remains = re.sub(r"^\| | \| | \|$", "", ours, flags=re.M)
    assert not re.search(r"[<>`*\[\]|@#&~\\{}!$]|://|www\.", remains), remains
    for line in text.split("\n"):
        if line.startswith("| "):
            # Header, separator and rows have one number of columns each table; the model's row is one of the first.
            assert line.count("|") in (4, 7), line
    assert text.count("<details>") == text.count("</details>") <= 1


def test_markdown_fits_into_a_comment() -> None:
    """Breaks if GitHub refuses the comment on a deep network of which everything is wrong and has the longest names."""
    names = tuple(f"{index}{'|@' * 5000}" for index in range(668))
    report = renamed(failing(668, tuple(range(668))), names)
    text = markdown(report)
    assert len(text) < MOST_CHARACTERS
    # The table of the levels has two rows above it.
    assert text.split("<details>")[1].count("\n| ") == MOST_ROWS + 1


@pytest.mark.parametrize(
    ("report", "said", "advice"),
    [
        (passing(), "Passed: bimlp_m.rpi4 (rpi4) on ssh://pi@board computes what bimlp_m.onnx in onnxruntime", ""),
        (
            failing(),
            "first wrong layer is network.0.3.token_mixing/Sign (level 2",
            "Its kernel does what the compiler meant",
        ),
        (replace(failing(), levels=failing().levels[1:]), "first wrong layer", "Add --level 1"),
        (model_only(), "only 970 of 1,000 images (97%; 95% interval", "Add --level 1 and --level 2"),
        (
            replace(passing(), model=model(970, 1000), passed=False),
            "every layer compared is right, but only 970",
            "--deterministic-reference",
        ),
    ],
)
def test_verdict(report: ValidationReport, said: str, advice: str) -> None:
    """Breaks if the sentence that most people read only is wrong, or advises what was already done."""
    found = verdict(report)
    assert found.passed is report.passed and said in found.sentence
    assert advice in found.next_step and bool(advice) == bool(found.next_step)


def test_verdict_on_a_kernel() -> None:
    """Breaks if a kernel that is wrong is blamed on the model's import, which level 2 then fails by as well."""
    whole = failing()
    kernels = replace(whole.levels[0], rows=whole.levels[1].rows, passed=False)
    found = verdict(replace(whole, levels=(kernels, whole.levels[1])))
    assert "(level 1, value" in found.sentence and "The device computes something else" in found.next_step


def test_never_whole_where_it_is_not() -> None:
    """Breaks if 49,999 of 50,000 images are rounded to 100%, or 1 of them to 0%."""
    assert "(> 99.99%; 95% interval 99.99% to > 99.99%)" in agreement(model(49_999, 50_000))
    assert "95% interval 51.01% to 100%)" in agreement(model(4, 4))
    assert "(< 0.01%;" in agreement(model(1, 50_000)) and "(100%; " in agreement(model(7, 7))


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
        text = contents(report, path)
        assert text.startswith(starts[suffix]) and text.endswith("\n")
        text.encode()
