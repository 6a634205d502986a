"""A validation as JUnit XML, for continuous integration: a test suite for each level, a test case for each layer.

The elements and attributes are those that Jenkins, GitLab and GitHub's test reporters read
(https://github.com/jenkinsci/xunit-plugin, junit-10.xsd); there are no times, since nobody measured them.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bnn_deploy.report.text import percent_text
from bnn_deploy.report.verdict import LEVELS, MODEL_NAME, agreement, level_counts, verdict, wrong_layer
from bnn_deploy.validation.report import LevelResult, ModelResult, TensorResult, ValidationReport

# Everything that is no Char of https://www.w3.org/TR/xml/#charsets: a parser refuses the file that has one.
FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SUITES = {1: "bnn-deploy.level-1.kernels", 2: "bnn-deploy.level-2.layers", 3: "bnn-deploy.level-3.model"}
WHOLE = "the whole level"


def validation_junit(report: ValidationReport) -> str:
    """The XML document; names of suites and cases depend on the model and its layers only, so that runs can be compared."""
    root = ElementTree.Element("testsuites", {"name": "bnn-deploy validate"})
    levels = {level.level: level for level in report.levels}
    for number, name in SUITES.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": name})
        _properties(suite, report)
        if number in levels:
            _level(suite, name, levels[number])
        elif number == 3 and report.model is not None:
            _model(suite, name, report.model, report)
        else:
            case = _case(suite, name, MODEL_NAME if number == 3 else WHOLE)
            ElementTree.SubElement(case, "skipped", {"message": f"level {number} was not asked for"})
        _count(suite)
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _properties(suite: ElementTree.Element, report: ValidationReport) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("model_file", "bundle", "target", "device", "reference", "data", "margin"):
        value = getattr(report, name)
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _legal(str(value))})


def _level(suite: ElementTree.Element, name: str, level: LevelResult) -> None:
    seen: dict[str, int] = {}
    for row in level.rows:
        title = f"{row.layer} [{row.kind} {row.tensor}]"
        seen[title] = seen.get(title, 0) + 1
        case = _case(suite, name, title if seen[title] == 1 else f"{title} ({seen[title]})")
        if not row.passed:
            _failure(case, f"{row.differing - row.within_margin} of {row.compared} wrong", _details(level, row))
    case = _case(suite, name, WHOLE)
    if not level.passed:
        failure = level.first_failure
        said = f"Level {level.level} failed." if failure is None else f"{wrong_layer(level, failure)}"
        _failure(case, said, f"{level_counts(level)}. {LEVELS.get(level.level, '')}")


def _details(level: LevelResult, row: TensorResult) -> str:
    numbers = [
        f"node: {row.layer}",
        f"value: {row.tensor}",
        f"kernel call: {row.step}",
        f"compared: {row.compared}",
        f"differing: {row.differing}",
        f"explained by rounding: {row.within_margin}",
    ]
    if row.max_error is not None:
        numbers.append(f"largest error: {row.max_error:.9g}")
    if row.margin is not None:
        numbers.append(f"margin: {row.margin:.9g}")
    if row.example is not None:
        example = row.example
        numbers += [
            f"image: {example.image}",
            f"position in the ONNX value: {list(example.position)}",
            f"expected ({level.reference}): {example.expected:.9g}",
            f"found (bundle): {example.found:.9g}",
            f"inputs: {example.pattern}",
        ]
    return "\n".join(numbers)


def _model(suite: ElementTree.Element, name: str, model: ModelResult, report: ValidationReport) -> None:
    case = _case(suite, name, MODEL_NAME)
    if not model.passed:
        message = f"{agreement(model)}; at least {percent_text(model.min_agreement)} is asked for"
        found = verdict(report)
        _failure(case, message, f"{found.sentence}\n{found.next_step}")


def _case(suite: ElementTree.Element, class_name: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", {"classname": class_name, "name": _legal(name)})


def _failure(case: ElementTree.Element, message: str, text: str) -> None:
    ElementTree.SubElement(case, "failure", {"type": "parity", "message": _legal(message)}).text = _legal(text)


def _count(suite: ElementTree.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", "0")
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))


def _legal(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
