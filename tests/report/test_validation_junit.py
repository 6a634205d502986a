"""A validation as JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from xml.dom import minidom
from xml.etree import ElementTree

from bnn_deploy.report.validation_junit import SUITES, validation_junit
from bnn_deploy.validation.report import ValidationReport
from tests.report.validation_samples import failing, passing


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
    suites = check_junit(validation_junit(report))
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
    (failure, *_) = ElementTree.fromstring(validation_junit(failing()).encode()).iter("failure")
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
        root = ElementTree.fromstring(validation_junit(report).encode())
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
    (suite, *_) = check_junit(validation_junit(replace(passing(), levels=(level,))))
    names = [case.get("name") for case in suite.findall("testcase")]
    assert names[1] == f"{names[0]} (2)" and names[2] == f"{names[0]} (3)"
