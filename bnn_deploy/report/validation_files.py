"""A validation as a file, in the format that the file's name asks for."""

from __future__ import annotations

import json
from pathlib import Path

from bnn_deploy.errors import InputError
from bnn_deploy.validation.report import ValidationReport

SUFFIXES = (".html", ".json", ".md", ".xml")


def check(path: Path) -> None:
    """To be called before long work.

    Raises:
        InputError: the suffix of ``path`` is none of ``SUFFIXES``.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{path}: is no name for a report; end it in .html (a page with charts), .json, .md (for a pull request) or "
            ".xml (JUnit)."
        )


def contents(report: ValidationReport, path: Path) -> bytes:
    """What to write to ``path``, in UTF-8.

    Raises:
        InputError: as ``check``.
    """
    check(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return (json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n").encode()
    if suffix == ".md":
        from bnn_deploy.report.validation_markdown import validation_markdown

        return validation_markdown(report).encode()
    if suffix == ".xml":
        from bnn_deploy.report.validation_junit import validation_junit

        return validation_junit(report).encode()
    from bnn_deploy.report.validation_page import validation_page

    return validation_page(report)
