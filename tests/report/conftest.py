"""Profiles and validations, also with names that try to break out of whatever they are written into."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from bnn_deploy.profiling.model import LostBoard, ProfileReport
from bnn_deploy.profiling.reading import profile_from_json
from bnn_deploy.validation.report import ValidationReport
from tests.report.browser import Browser, find_chromium
from tests.report.nasty_names import NASTY
from tests.report.validation_samples import REPORTS

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; where it is missing the tests skip at a developer's, and fail in continuous integration."""
    program = find_chromium()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed; CI installs it in .ci/run")
        pytest.skip("needs Chromium (Debian package chromium)")
    with Browser(program, tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def profile(tiny_bundle: Path, invoke: Invoke) -> ProfileReport:
    """A measured profile of the tiny network."""
    result = invoke("profile", tiny_bundle, "--repeat", 20, "--format", "json")
    assert result.exit_code == 0, result.stderr
    return profile_from_json(json.loads(result.stdout), "stdout")


@pytest.fixture(scope="session")
def nasty(profile: ProfileReport) -> ProfileReport:
    """The same with other names of layers, kernels, board, device and model."""
    return rename(profile, NASTY)


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> ValidationReport:
    """One of ``REPORTS``."""
    return REPORTS[request.param]


def rename(profile: ProfileReport, names: Sequence[str]) -> ProfileReport:
    """``profile`` with ``names`` for its first layers and kernels, and for everything else that has a name."""
    (board,) = profile.boards
    kernels = list(board.kernels)
    for index, name in enumerate(names):
        kernels[index] = replace(kernels[index], layer=name, name=name)
    board = replace(board, board=names[0], kernel_set=names[1], kernels=tuple(kernels))
    lost = (LostBoard(names[0], names[1]),)
    return replace(profile, boards=(board,), lost=lost, device=names[0], target=names[5], model=names[1])
